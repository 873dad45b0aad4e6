/* Tells which process the kernel's out-of-memory killer chose and which cgroup it was in.
 *
 * oom:mark_victim names the victim but fires in the context of whoever needed memory; the victim's own cgroup
 * is known where its SIGKILL is delivered (signal:signal_deliver, in its context, before it leaves its cgroup).
 * The kernel sends the signal before it marks the victim, so either may come first: each side leaves its note,
 * then looks for the other's, and whoever takes the mark away tells. A kill -9 by a person marks no victim and
 * leaves no event. Kernel 6.1's tracepoint has the pid alone: sizes are taken where the running kernel has them.
 */
#define OOM_KILL_APART 10000000000ULL /* notes further apart are of two processes that had one number */

struct oom_kill_mark {
    u64 time_ns;
    u64 anon_rss_kib; /* ~0: this kernel does not say */
};

struct oom_kill_death {
    u64 time_ns;
    u64 cgroup_id;
    u32 pid;
    u32 unused;
    char process[16];
};

struct oom_kill_event {
    u64 time_ns;
    u64 cgroup_id;
    u64 anon_rss_kib;
    u32 pid;
    u32 unused;
    char process[16];
};

/* Both by thread number: the victim may be a thread other than its process's first. */
BPF_TABLE("lru_hash", u32, struct oom_kill_mark, oom_kill_marked, 256);
BPF_TABLE("lru_hash", u32, struct oom_kill_death, oom_kill_killed, 1024);
BPF_RINGBUF_OUTPUT(oom_kill_events, RING_PAGES(65536));
LEDGER_MAP(oom_kill_ledger);

static __always_inline void oom_kill_tell(u32 thread, struct oom_kill_mark *mark, struct oom_kill_death *death)
{
    struct oom_kill_event event = {};
    event.time_ns = mark->time_ns;
    event.anon_rss_kib = mark->anon_rss_kib;
    event.cgroup_id = death->cgroup_id;
    event.pid = death->pid;
    __builtin_memcpy(event.process, death->process, sizeof(event.process));
    if (oom_kill_marked.delete(&thread))
        return; /* the other side was quicker */
    if (oom_kill_events.ringbuf_output(&event, sizeof(event), FORCE_WAKEUP)) {
        int index = LOST;
        u64 *lost = oom_kill_ledger.lookup(&index);
        if (lost)
            __sync_fetch_and_add(lost, 1);
    }
}

#ifdef HAS_oom_mark_victim_pid
int oom_kill_mark_victim(struct tp_oom_mark_victim *args)
{
    u32 thread = args->pid;
    struct oom_kill_mark mark = {};
    mark.time_ns = bpf_ktime_get_boot_ns();
#ifdef HAS_oom_mark_victim_anon_rss
    mark.anon_rss_kib = args->anon_rss;
#else
    mark.anon_rss_kib = ~0ULL;
#endif
    oom_kill_marked.update(&thread, &mark);
    struct oom_kill_death *death = oom_kill_killed.lookup(&thread);
    if (death && mark.time_ns - death->time_ns < OOM_KILL_APART)
        oom_kill_tell(thread, &mark, death);
    return 0;
}
#endif

#ifdef HAS_signal_signal_deliver_sig
int oom_kill_deliver(struct tp_signal_signal_deliver *args)
{
    if (args->sig != 9)
        return 0;
    u64 both = bpf_get_current_pid_tgid();
    u32 thread = both;
    struct oom_kill_death death = {};
    death.time_ns = bpf_ktime_get_boot_ns();
    death.cgroup_id = bpf_get_current_cgroup_id();
    death.pid = both >> 32;
    bpf_get_current_comm(death.process, sizeof(death.process));
    oom_kill_killed.update(&thread, &death);
    struct oom_kill_mark *mark = oom_kill_marked.lookup(&thread);
    if (mark && death.time_ns - mark->time_ns < OOM_KILL_APART)
        oom_kill_tell(thread, mark, &death);
    return 0;
}
#endif
