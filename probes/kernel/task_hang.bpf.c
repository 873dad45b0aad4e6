/* Tells of tasks that the kernel's watchdog found stuck for its whole time-out: sched:sched_process_hang, which
 * khungtaskd raises once for each task at most every kernel.hung_task_timeout_secs. The record names the task; the
 * cgroup at hand would be the watchdog's own.
 */
struct task_hang_event {
    u64 time_ns;
    u32 pid;
    u32 unused;
};

BPF_RINGBUF_OUTPUT(task_hang_events, RING_PAGES(65536));
LEDGER_MAP(task_hang_ledger);

#ifdef HAS_sched_sched_process_hang_pid
int task_hang_found(struct tp_sched_sched_process_hang *args)
{
    struct task_hang_event event = {};
    event.time_ns = bpf_ktime_get_boot_ns();
    event.pid = args->pid;
    if (task_hang_events.ringbuf_output(&event, sizeof(event), FORCE_WAKEUP)) {
        int index = LOST;
        u64 *lost = task_hang_ledger.lookup(&index);
        if (lost)
            __sync_fetch_and_add(lost, 1);
    }
    return 0;
}
#endif
