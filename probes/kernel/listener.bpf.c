/* Tells when a TCP socket begins and stops listening: sock:inet_sock_set_state, states from or to LISTEN. States from
 * and to SYN_SENT are how attempts to connect go: listener_peers.bpf.c counts them.
 *
 * The tracepoint fires in every network namespace; user space asks the host's own socket table which of them
 * are the host's. Connections change state some six times each, and most of these leave after one test of both states.
 */
#define LISTENER_LISTEN 10 /* TCP_LISTEN, net/tcp_states.h */
#define LISTENER_CLOSE 7   /* TCP_CLOSE */
#define LISTENER_SYN_SENT 2 /* TCP_SYN_SENT */
#define LISTENER_TCP 6
#define LISTENER_MPTCP 262

struct listener_event {
    u64 time_ns;
    u64 cgroup_id;
    u32 pid;
    u16 family;
    u16 port;
    u8 address[16];
    u32 opened; /* 1: began, 0: stopped */
    char process[16];
    u32 unused;
};

BPF_RINGBUF_OUTPUT(listener_events, RING_PAGES(1048576));
LEDGER_MAP(listener_ledger);

static __always_inline void listener_submit(struct listener_event *event)
{
    int lost_index = LOST, sent_index = SENT;
    u64 *lost = listener_ledger.lookup(&lost_index), *sent = listener_ledger.lookup(&sent_index);
    if (!lost || !sent)
        return;
    __sync_fetch_and_add(sent, 1);
    u64 flags = *sent % WAKE_EVERY ? NO_WAKEUP : FORCE_WAKEUP;
    if (listener_events.ringbuf_output(event, sizeof(*event), flags))
        __sync_fetch_and_add(lost, 1);
}

#ifdef HAS_sock_inet_sock_set_state_newstate
static __always_inline void listener_connecting_state(struct tp_sock_inet_sock_set_state *args);

int listener_set_state(struct tp_sock_inet_sock_set_state *args)
{
    u32 states = 1U << (args->oldstate & 31) | 1U << (args->newstate & 31);
    if (__builtin_expect(!(states & (1U << LISTENER_SYN_SENT | 1U << LISTENER_LISTEN)), 1))
        return 0;
    if (states & 1U << LISTENER_SYN_SENT) {
        listener_connecting_state(args);
        return 0;
    }
    u32 opened = args->newstate == LISTENER_LISTEN;
    /* A connection that is accepted is a copy of its listener and also leaves LISTEN, but not to CLOSE. */
    if (!opened && args->newstate != LISTENER_CLOSE)
        return 0;
    if (args->protocol != LISTENER_TCP && args->protocol != LISTENER_MPTCP)
        return 0;
    struct listener_event event = {};
    event.time_ns = bpf_ktime_get_boot_ns();
    event.cgroup_id = bpf_get_current_cgroup_id();
    event.pid = bpf_get_current_pid_tgid() >> 32;
    event.family = args->family;
    event.port = args->sport;
    event.opened = opened;
    if (event.family == 2)
        __builtin_memcpy(event.address, args->saddr, 4);
    else
        __builtin_memcpy(event.address, args->saddr_v6, 16);
    bpf_get_current_comm(event.process, sizeof(event.process));
    listener_submit(&event);
    return 0;
}
#endif
