/* Counts what remote ends of TCP connections had: segments sent again, resets, and attempts to connect by how they
 * ended. tcp:tcp_retransmit_skb, sock:inet_sk_error_report, syscalls:sys_exit_connect, and the states of
 * listener.bpf.c from and to SYN_SENT.
 *
 * The error that a socket reports tells why an attempt failed, its states tell that it did (a program that gives up
 * waiting reports no error), and the call's own result tells what the host's routes refuse before there is any state.
 * All of that is rare. A success is counted only for a peer that has failed before, and otherwise noted once in
 * a while (LISTENER_SAMPLED), because a table entry for every connection costs more than everything else here.
 * The same goes for who connects: it is noted from a peer's second attempt on, in connect() itself; an interrupt
 * that ends an attempt knows nothing of the process. Whether a peer failed before is first asked of a few words of
 * bits (listener_suspects), one for each of 4096 classes of peers, which saves nearly every other look into a table.
 *
 * Port 0 stands for all ports of an address: what happens to established connections is counted so, because the
 * port of a remote client means nothing.
 */
#define LISTENER_ESTABLISHED 1 /* TCP_ESTABLISHED, net/tcp_states.h */
#define LISTENER_SAMPLED 7     /* one success of eight is noted */

#if defined(__x86_64__)
#define LISTENER_ARGUMENT_1 13 /* si, asm/ptrace.h */
#elif defined(__aarch64__)
#define LISTENER_ARGUMENT_1 1 /* x1 */
#endif

struct listener_peer_key {
    u8 address[16]; /* IPv4 in IPv6 clothes */
    u32 port;
    u32 unused;
};

struct listener_peer_value {
    u64 last_ns;
    u64 retransmitted;     /* segments of established connections */
    u64 syn_retransmitted; /* first segments, of attempts that got no answer yet */
    u64 resets;
    u64 refused;     /* errors that sockets reported: ECONNREFUSED */
    u64 unreachable; /* EHOSTUNREACH and its like */
    u64 timed_out;   /* ETIMEDOUT */
    u64 barred;      /* connect() refused by the host's own routes */
    u64 failed;      /* attempts that ended without a connection */
    u64 succeeded;   /* attempts that did not, since one failed */
    u32 barred_errno;
    u32 unused;
};

struct listener_client_key {
    struct listener_peer_key peer;
    u64 cgroup_id;
};

struct listener_client_value {
    u64 last_ns;
    u64 barred;
    u64 failed;
    u64 succeeded;
    u32 pid;
    u32 unused;
    char process[16];
};

struct listener_attempt {
    struct listener_client_key client;
    u32 pid;
    u32 unused;
    char process[16];
};

BPF_TABLE("lru_hash", struct listener_peer_key, struct listener_peer_value, listener_peers, 2048);
BPF_TABLE("lru_hash", struct listener_client_key, struct listener_client_value, listener_clients, 1024);
BPF_TABLE("lru_hash", struct listener_peer_key, u64, listener_reached, 1024);
BPF_TABLE("lru_hash", u64, struct listener_attempt, listener_attempts, 1024);
BPF_TABLE("array", int, u64, listener_suspects, 64);
LEDGER_MAP(listener_peer_ledger);

static void *(*listener_task)(void) = (void *)BPF_FUNC_get_current_task_btf;
static u64 *(*listener_registers)(void *) = (void *)BPF_FUNC_task_pt_regs;

static __always_inline void listener_note_event(void)
{
    int index = SENT;
    u64 *sent = listener_peer_ledger.lookup(&index);
    if (sent)
        __sync_fetch_and_add(sent, 1);
}

/* Of the first and the last word of a peer's address, which tell most of them apart, and its port. */
static __always_inline u32 listener_class(u32 first, u32 last, u32 port)
{
    return ((first ^ last ^ port * 0x9e3779b1) * 0x85ebca6b) >> 20;
}

static __always_inline int listener_is_suspect(u32 first, u32 last, u32 port)
{
    u32 class = listener_class(first, last, port);
    int index = class >> 6;
    u64 *word = listener_suspects.lookup(&index);
    return word && *word >> (class & 63) & 1;
}

static __always_inline void listener_suspect(struct listener_peer_key *key)
{
    u32 *words = (u32 *)key->address, class = listener_class(words[0], words[3], key->port);
    int index = class >> 6;
    u64 *word = listener_suspects.lookup(&index), bit = 1ULL << (class & 63);
    if (word && !(*word & bit))
        *word |= bit; /* two at once may lose one: the next failure sets it */
}

static __always_inline struct listener_peer_value *listener_peer(struct listener_peer_key *key)
{
    struct listener_peer_value fresh = {}, *value = listener_peers.lookup(key);
    if (!value) {
        listener_peers.insert(key, &fresh);
        value = listener_peers.lookup(key);
    }
    if (value)
        value->last_ns = bpf_ktime_get_boot_ns();
    return value;
}

static __always_inline struct listener_client_value *listener_client(struct listener_client_key *key, u32 pid,
                                                                     char *process)
{
    struct listener_client_value fresh = {}, *value = listener_clients.lookup(key);
    if (!value) {
        listener_clients.insert(key, &fresh);
        value = listener_clients.lookup(key);
    }
    if (value) {
        value->last_ns = bpf_ktime_get_boot_ns();
        value->pid = pid;
        __builtin_memcpy(value->process, process, sizeof(value->process));
    }
    return value;
}

static __always_inline int listener_is_loopback(u8 *address)
{
    u32 *words = (u32 *)address;
    if (words[0] || words[1])
        return 0;
    return (words[2] == bpf_htonl(0xffff) && address[12] == 127) || (!words[2] && words[3] == bpf_htonl(1));
}

#ifdef HAS_sock_inet_sock_set_state_newstate
/* connect() of a peer that failed before: note who it is, under the socket. */
static __always_inline void listener_attempt_begins(struct listener_peer_key *peer, u64 sock)
{
    struct listener_attempt attempt = {};
    if (!listener_peers.lookup(peer))
        return;
    attempt.client.peer = *peer;
    attempt.client.cgroup_id = bpf_get_current_cgroup_id();
    attempt.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(attempt.process, sizeof(attempt.process));
    listener_attempts.update(&sock, &attempt);
}

static __always_inline void listener_attempt_ends(u64 sock, int failed)
{
    struct listener_attempt *attempt = listener_attempts.lookup(&sock);
    if (!attempt)
        return;
    struct listener_client_key key = attempt->client;
    struct listener_client_value *client = listener_client(&key, attempt->pid, attempt->process);
    if (client)
        __sync_fetch_and_add(failed ? &client->failed : &client->succeeded, 1);
    listener_attempts.delete(&sock);
}

/* Nearly every attempt is of a peer that never failed: it leaves before a key is made of its address. */
static __always_inline void listener_connecting_state(struct tp_sock_inet_sock_set_state *args)
{
    struct listener_peer_key key = {};
    struct listener_peer_value *peer;
    u32 words[4], state = args->newstate, port = args->dport;
    if (args->protocol != LISTENER_TCP && args->protocol != LISTENER_MPTCP)
        return;
    __builtin_memcpy(words, args->daddr_v6, 16);
    int suspect = listener_is_suspect(words[0], words[3], port);
    int sampled = state == LISTENER_ESTABLISHED && !(bpf_get_prandom_u32() & LISTENER_SAMPLED);
    if (__builtin_expect(state != LISTENER_CLOSE && !suspect && !sampled, 1))
        return;
    __builtin_memcpy(key.address, words, 16);
    key.port = port;
    if (state == LISTENER_CLOSE) {
        listener_suspect(&key);
        peer = listener_peer(&key);
        if (peer)
            __sync_fetch_and_add(&peer->failed, 1);
        listener_attempt_ends(args->skaddr, 1);
        listener_note_event();
        return;
    }
    if (sampled && !listener_reached.lookup(&key)) {
        u64 now = bpf_ktime_get_boot_ns();
        listener_reached.update(&key, &now);
    }
    if (!suspect)
        return;
    if (state == LISTENER_SYN_SENT) {
        listener_attempt_begins(&key, args->skaddr);
        return;
    }
    peer = state == LISTENER_ESTABLISHED ? listener_peers.lookup(&key) : 0;
    if (!peer)
        return;
    peer->last_ns = bpf_ktime_get_boot_ns();
    __sync_fetch_and_add(&peer->succeeded, 1);
    listener_attempt_ends(args->skaddr, 0);
    listener_note_event();
}
#endif

#ifdef HAS_tcp_tcp_retransmit_skb_daddr_v6
int listener_retransmit(struct tp_tcp_tcp_retransmit_skb *args)
{
    struct listener_peer_key key = {};
    u32 begins = args->state == LISTENER_SYN_SENT;
    __builtin_memcpy(key.address, args->daddr_v6, 16);
    if (begins)
        key.port = args->dport;
    struct listener_peer_value *peer = listener_peer(&key);
    if (peer)
        __sync_fetch_and_add(begins ? &peer->syn_retransmitted : &peer->retransmitted, 1);
    listener_note_event();
    return 0;
}
#endif

#ifdef HAS_sock_inet_sk_error_report_error
int listener_error(struct tp_sock_inet_sk_error_report *args)
{
    struct listener_peer_key key = {};
    struct listener_peer_value *peer;
    if (args->protocol != LISTENER_TCP && args->protocol != LISTENER_MPTCP)
        return 0;
    s32 error = args->error;
    __builtin_memcpy(key.address, args->daddr_v6, 16);
    if (error == 104 || error == 32) { /* ECONNRESET, EPIPE */
        if (listener_is_loopback(key.address))
            return 0;
        peer = listener_peer(&key);
        if (peer)
            __sync_fetch_and_add(&peer->resets, 1);
        listener_note_event();
        return 0;
    }
    /* ECONNREFUSED, ETIMEDOUT; ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH */
    if (error != 111 && error != 110 && error != 100 && error != 101 && error != 112 && error != 113)
        return 0;
    key.port = args->dport;
    listener_suspect(&key);
    peer = listener_peer(&key);
    if (peer)
        __sync_fetch_and_add(error == 111   ? &peer->refused
                             : error == 110 ? &peer->timed_out
                                            : &peer->unreachable,
                             1);
    listener_note_event();
    return 0;
}
#endif

#ifdef HAS_syscalls_sys_exit_connect_ret
int listener_connect_returned(struct tp_syscalls_sys_exit_connect *args)
{
    s64 error = -args->ret;
    /* What routes answer: EHOSTUNREACH, ENETUNREACH, EINVAL (blackhole), EACCES (prohibit). */
    if (__builtin_expect(error != 113 && error != 101 && error != 22 && error != 13, 1))
        return 0;
    u64 *registers = listener_registers(listener_task());
    u8 name[28] = {}; /* struct sockaddr_in6; of a shorter one the rest is whatever follows */
    void *user = (void *)registers[LISTENER_ARGUMENT_1];
    if (bpf_probe_read_user(name, 8, user))
        return 0;
    u16 family = *(u16 *)name;
    struct listener_client_key key = {};
    key.peer.port = (u32)name[2] << 8 | name[3];
    if (family == 2) { /* AF_INET */
        key.peer.address[10] = key.peer.address[11] = 0xff;
        __builtin_memcpy(key.peer.address + 12, name + 4, 4);
    } else if (family == 10) { /* AF_INET6 */
        if (bpf_probe_read_user(name, sizeof(name), user))
            return 0;
        __builtin_memcpy(key.peer.address, name + 8, 16);
    } else
        return 0;
    if (!key.peer.port)
        return 0;
    listener_suspect(&key.peer);
    struct listener_peer_value *peer = listener_peer(&key.peer);
    if (peer) {
        __sync_fetch_and_add(&peer->barred, 1);
        peer->barred_errno = error;
    }
    key.cgroup_id = bpf_get_current_cgroup_id();
    char process[16] = {};
    bpf_get_current_comm(process, sizeof(process));
    struct listener_client_value *client = listener_client(&key, bpf_get_current_pid_tgid() >> 32, process);
    if (client)
        __sync_fetch_and_add(&client->barred, 1);
    listener_note_event();
    return 0;
}
#endif
