/* Tells which process is ended by a fault signal whose default action it kept.
 *
 * signal:signal_deliver runs in the dying process, so its cgroup and name are at hand, and its record says the
 * signal, its origin (si_code) and the handler; sched:sched_process_exit would need the exit code out of
 * task_struct. Only ILL, ABRT, BUS, FPE and SEGV: TERM, INT and KILL are how operators stop things.
 */
#define FATAL_SIGNALS ((1UL << 4) | (1UL << 6) | (1UL << 7) | (1UL << 8) | (1UL << 11))

struct fatal_signal_event {
    u64 time_ns;
    u64 cgroup_id;
    u32 pid;
    s32 signal;
    s32 code;
    u32 unused;
    char process[16];
};

BPF_TABLE("lru_hash", u32, u64, fatal_signal_told, 1024);
BPF_RINGBUF_OUTPUT(fatal_signal_events, RING_PAGES(262144));
LEDGER_MAP(fatal_signal_ledger);

static __always_inline void fatal_signal_submit(struct fatal_signal_event *event)
{
    int lost_index = LOST, sent_index = SENT;
    u64 *lost = fatal_signal_ledger.lookup(&lost_index), *sent = fatal_signal_ledger.lookup(&sent_index);
    if (!lost || !sent)
        return;
    __sync_fetch_and_add(sent, 1);
    u64 flags = *sent % WAKE_EVERY ? NO_WAKEUP : FORCE_WAKEUP;
    if (fatal_signal_events.ringbuf_output(event, sizeof(*event), flags))
        __sync_fetch_and_add(lost, 1);
}

#ifdef HAS_signal_signal_deliver_sa_handler
int fatal_signal_deliver(struct tp_signal_signal_deliver *args)
{
    u32 signal = args->sig;
    if (signal > 31 || !(FATAL_SIGNALS & (1UL << signal)) || args->sa_handler)
        return 0;
    struct fatal_signal_event event = {};
    event.time_ns = bpf_ktime_get_boot_ns();
    event.pid = bpf_get_current_pid_tgid() >> 32;
    /* Two threads may fault at once; a pid that comes again within a second is the same death. */
    u64 *told = fatal_signal_told.lookup(&event.pid);
    if (told && event.time_ns - *told < 1000000000ULL)
        return 0;
    fatal_signal_told.update(&event.pid, &event.time_ns);
    event.cgroup_id = bpf_get_current_cgroup_id();
    event.signal = signal;
    event.code = args->code;
    bpf_get_current_comm(event.process, sizeof(event.process));
    fatal_signal_submit(&event);
    return 0;
}
#endif
