/* Measures how long threads of watched servers are ready to run and do not: from sched:sched_wakeup and
 * sched_wakeup_new, or from being preempted, to the sched:sched_switch that lets them run, as a histogram of
 * powers of two for each server.
 *
 * Which threads, the reader says: it fills run_delay_threads. These programs run at every switch, so they sleep
 * until the reader wakes them (probes/kernel/asleep.py); a thread of nobody's costs a failed look-up.
 */
#define RUN_DELAY_SERVERS 32
#define RUN_DELAY_CLASSES 32
/* What a task does that leaves the processor, as the tracepoint tells it: none of the sleeping states is preempted. */
#define RUN_DELAY_SLEEPS 0xff

struct run_delay_thread {
    u64 ready_ns; /* 0: it runs, or it sleeps */
    u32 server;
    u32 unused;
};

struct run_delay_server {
    u64 waits;
    u64 waited_ns;
    u64 classes[RUN_DELAY_CLASSES]; /* [i]: waits of less than 2^i us */
};

BPF_TABLE("hash", u32, struct run_delay_thread, run_delay_threads, 8192);
BPF_TABLE("array", int, struct run_delay_server, run_delay_servers, RUN_DELAY_SERVERS);

static __always_inline int run_delay_ready(u32 tid)
{
    struct run_delay_thread *thread = run_delay_threads.lookup(&tid);
    if (thread)
        thread->ready_ns = bpf_ktime_get_ns();
    return 0;
}

static __always_inline void run_delay_count(struct run_delay_thread *thread, u64 now)
{
    int index = thread->server;
    struct run_delay_server *server = run_delay_servers.lookup(&index);
    if (!server)
        return;
    u64 waited_ns = now - thread->ready_ns, us = waited_ns / 1000;
    u32 class = 0, step;
    if (us > 0x7fffffff)
        us = 0x7fffffff;
    /* The position of the highest bit, by halves. */
    step = (us > 0xffff) << 4; us >>= step; class |= step;
    step = (us > 0xff) << 3; us >>= step; class |= step;
    step = (us > 0xf) << 2; us >>= step; class |= step;
    step = (us > 0x3) << 1; us >>= step; class |= step;
    class += us > 1 ? 2 : us;
    if (class >= RUN_DELAY_CLASSES)
        class = RUN_DELAY_CLASSES - 1;
    __sync_fetch_and_add(&server->waits, 1);
    __sync_fetch_and_add(&server->waited_ns, waited_ns);
    __sync_fetch_and_add(&server->classes[class], 1);
}

#ifdef HAS_sched_sched_wakeup_pid
int run_delay_wakeup(struct tp_sched_sched_wakeup *args)
{
    return run_delay_ready(args->pid);
}
#endif

#ifdef HAS_sched_sched_wakeup_new_pid
int run_delay_wakeup_new(struct tp_sched_sched_wakeup_new *args)
{
    return run_delay_ready(args->pid);
}
#endif

#if defined(HAS_sched_sched_switch_prev_state) && defined(HAS_sched_sched_switch_next_pid)
int run_delay_switch(struct tp_sched_sched_switch *args)
{
    u32 previous = args->prev_pid, next = args->next_pid;
    struct run_delay_thread *thread = previous ? run_delay_threads.lookup(&previous) : 0;
    u64 now = 0;
    if (thread) {
        now = bpf_ktime_get_ns();
        thread->ready_ns = args->prev_state & RUN_DELAY_SLEEPS ? 0 : now;
    }
    thread = next ? run_delay_threads.lookup(&next) : 0;
    if (!thread || !thread->ready_ns)
        return 0;
    run_delay_count(thread, now ? now : bpf_ktime_get_ns());
    thread->ready_ns = 0;
    return 0;
}
#endif
