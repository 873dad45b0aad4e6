/* Tells which process the kernel's out-of-memory killer chose and which cgroup it was in.
 *
 * oom:mark_victim fires in the context of whoever needed memory, so it only notes the victim's pid; the
 * victim's own cgroup is picked up when its SIGKILL is delivered (signal:signal_deliver, in the victim's
 * context), before it leaves its cgroup. A kill -9 by a person marks no victim and leaves no event. Kernel 6.1's
 * tracepoint has the pid alone, so the sizes are taken only where the running kernel has them.
 */
struct oom_kill_mark {
    u64 marked_ns;
    u64 anon_rss_kib; /* ~0: this kernel does not say */
};

struct oom_kill_event {
    u64 time_ns;
    u64 cgroup_id;
    u64 anon_rss_kib;
    u32 pid;
    u32 unused;
    char process[16];
};

BPF_TABLE("lru_hash", u32, struct oom_kill_mark, oom_kill_marked, 256);
BPF_RINGBUF_OUTPUT(oom_kill_events, RING_PAGES(65536));
BPF_TABLE("percpu_array", int, u64, oom_kill_ledger, LEDGER);

#ifdef HAS_oom_mark_victim_pid
int oom_kill_mark_victim(struct tp_oom_mark_victim *args)
{
    u32 pid = args->pid;
    struct oom_kill_mark mark = {};
    mark.marked_ns = bpf_ktime_get_boot_ns();
#ifdef HAS_oom_mark_victim_anon_rss
    mark.anon_rss_kib = args->anon_rss;
#else
    mark.anon_rss_kib = ~0ULL;
#endif
    oom_kill_marked.update(&pid, &mark);
    return 0;
}
#endif

#ifdef HAS_signal_signal_deliver_sig
int oom_kill_deliver(struct tp_signal_signal_deliver *args)
{
    if (args->sig != 9)
        return 0;
    u64 both = bpf_get_current_pid_tgid();
    u32 pid = both >> 32, thread = both;
    struct oom_kill_mark *mark = oom_kill_marked.lookup(&pid);
    if (!mark) {
        mark = oom_kill_marked.lookup(&thread); /* the kernel may mark a thread other than the leader */
        if (!mark)
            return 0;
    }
    struct oom_kill_event event = {};
    event.time_ns = mark->marked_ns;
    event.anon_rss_kib = mark->anon_rss_kib;
    if (oom_kill_marked.delete(&pid) && oom_kill_marked.delete(&thread))
        return 0; /* another thread of the victim has told already */
    event.cgroup_id = bpf_get_current_cgroup_id();
    event.pid = pid;
    bpf_get_current_comm(event.process, sizeof(event.process));
    if (oom_kill_events.ringbuf_output(&event, sizeof(event), FORCE_WAKEUP)) {
        int index = LOST;
        u64 *lost = oom_kill_ledger.lookup(&index);
        if (lost)
            *lost += 1;
    }
    return 0;
}
#endif
