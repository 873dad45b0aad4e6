/* Holds declared scopes against what their processes do: executing a program (sched:sched_process_exec, with
 * sched:sched_process_fork to know the service manager's own children), connecting and sending (cgroup/connect4,
 * connect6, sendmsg4, sendmsg6), and taking a port to listen on (cgroup/bind4, bind6), the latter six at the root of the
 * cgroup v2 hierarchy.
 *
 * Which cgroup is which scope stands in `scope_members`, which the agent fills, because a unit that restarts is another
 * cgroup; the nearest ancestor with an entry decides, and an entry of 0 ends a scope. Everything else, the rules and
 * whether a breach is refused, stands in tables that the loader fills and freezes: no process can write them after that.
 * A cgroup without an entry is nobody's scope, and passes.
 *
 * A breach is counted exactly in `scope_totals`. The ring hears of SCOPE_BURST of them a second for each scope and sort
 * of breach; the reader tells the rest, and what found no room, by their number.
 */
#define SCOPE_SLOTS 17 /* the first is no scope */
#define SCOPE_SORTS 4
#define SCOPE_LEVELS 12 /* of the cgroup hierarchy, below its root */
#define SCOPE_BURST 16
#define SCOPE_SECOND 1000000000ULL
#define SCOPE_PATH 252
#define SCOPE_IPV4 0x8000 /* beside the scope of a destination: no network of IPv6 holds an address of IPv4 */
#define SCOPE_INET 2
#define SCOPE_INET6 10
#define SCOPE_STREAM 1 /* SOCK_STREAM */

enum scope_sort {
    SCOPE_EXECUTABLE,
    SCOPE_DESTINATION,
    SCOPE_LISTENER,
};

struct scope_rule {
    u32 limits; /* a bit for each sort that is limited */
    u32 deny;
    char name[32];
};

struct scope_path {
    u32 scope;
    char path[SCOPE_PATH];
};

struct scope_destination {
    u32 prefix; /* bits that count: all of scope and port, and those of the address */
    u16 scope;
    u16 port; /* 0: any */
    u32 address[4];
};

struct scope_port {
    u16 scope;
    u16 port;
};

struct scope_pace {
    u64 began_ns;
    u64 told;
};

struct scope_event {
    u64 time_ns;
    u64 cgroup_id;
    u32 pid;
    u32 scope;
    u32 sort; /* enum scope_sort */
    u32 denied;
    u32 family;
    u32 port;
    u32 address[4];
    char process[16];
    char path[SCOPE_PATH];
    u32 unused;
};

BPF_TABLE("hash", u64, u32, scope_members, 256);
BPF_TABLE("array", int, struct scope_rule, scope_rules, SCOPE_SLOTS);
BPF_TABLE("hash", struct scope_path, u32, scope_paths, 2048);
BPF_F_TABLE("lpm_trie", struct scope_destination, u32, scope_destinations, 1024, BPF_F_NO_PREALLOC);
BPF_TABLE("hash", struct scope_port, u32, scope_ports, 1024);
BPF_TABLE("array", int, u32, scope_agent, 3); /* its uid and its port (0: unknown), the service manager's pid */
BPF_TABLE("lru_hash", u32, u32, scope_started, 1024); /* who was forked by the service manager and has not executed yet */
BPF_TABLE("array", int, struct scope_pace, scope_paces, 68); /* SCOPE_SLOTS * SCOPE_SORTS */
BPF_F_TABLE("array", int, u64, scope_totals, 68, BPF_F_MMAPABLE);
BPF_RINGBUF_OUTPUT(scope_events, RING_PAGES(65536));
LEDGER_MAP(scope_ledger);

/* The scope of the running task, 0 for none. */
static __always_inline u32 scope_here(void)
{
    u32 scope = 0;
    for (int level = 1; level <= SCOPE_LEVELS; level++) {
        u64 id = bpf_get_current_ancestor_cgroup_id(level);
        if (!id)
            break;
        u32 *found = scope_members.lookup(&id);
        if (found)
            scope = *found;
    }
    return scope;
}

static __always_inline struct scope_rule *scope_limit(u32 scope, u32 sort)
{
    int slot = scope;
    struct scope_rule *rule = scope ? scope_rules.lookup(&slot) : 0;
    return rule && rule->limits >> sort & 1 ? rule : 0;
}

/* Count a breach; return room for telling it, or 0. */
static __always_inline struct scope_event *scope_breach(u32 scope, u32 sort)
{
    int index = scope * SCOPE_SORTS + sort;
    u64 now = bpf_ktime_get_boot_ns(), *total = scope_totals.lookup(&index);
    struct scope_pace *pace = scope_paces.lookup(&index);
    if (!total || !pace)
        return 0;
    __sync_fetch_and_add(total, 1);
    if (now - pace->began_ns >= SCOPE_SECOND) {
        pace->began_ns = now;
        pace->told = 0;
    }
    if (pace->told >= SCOPE_BURST)
        return 0;
    __sync_fetch_and_add(&pace->told, 1);
    struct scope_event *event = scope_events.ringbuf_reserve(sizeof(*event));
    if (!event)
        return 0;
    event->time_ns = now;
    event->cgroup_id = bpf_get_current_cgroup_id();
    event->pid = bpf_get_current_pid_tgid() >> 32;
    event->scope = scope;
    event->sort = sort;
    event->denied = event->family = event->port = event->unused = 0;
    event->address[0] = event->address[1] = event->address[2] = event->address[3] = 0;
    event->path[0] = 0;
    bpf_get_current_comm(event->process, sizeof(event->process));
    return event;
}

/* Since version 256 the service manager forks a unit's processes into the unit's cgroup and has them execute its own
 * helper there, by a descriptor: the first thing that they do, and none of the unit's. Nobody else can be forked by it. */
#ifdef HAS_sched_sched_process_fork_child_pid
int scope_fork(struct tp_sched_sched_process_fork *args)
{
    int index = 2;
    u32 child = args->child_pid, one = 1, *manager = scope_agent.lookup(&index);
    if (manager && *manager && (u32)args->parent_pid == *manager)
        scope_started.update(&child, &one);
    return 0;
}
#endif

static __always_inline int scope_by_descriptor(const char *path)
{
    return path[0] == '/' && path[1] == 'p' && path[2] == 'r' && path[3] == 'o' && path[4] == 'c' && path[5] == '/' &&
           path[6] == 's' && path[7] == 'e' && path[8] == 'l' && path[9] == 'f' && path[10] == '/' && path[11] == 'f' &&
           path[12] == 'd' && path[13] == '/';
}

#ifdef HAS_sched_sched_process_exec_filename
int scope_exec(struct tp_sched_sched_process_exec *args)
{
    struct scope_path key = {};
    key.scope = scope_here();
    if (!scope_limit(key.scope, SCOPE_EXECUTABLE))
        return 0;
    char *path = (char *)args + (args->filename & 0xffff);
    bpf_probe_read_kernel_str(key.path, sizeof(key.path), path);
    u32 pid = bpf_get_current_pid_tgid(), *started = scope_started.lookup(&pid);
    if (started)
        scope_started.delete(&pid);
    if (scope_paths.lookup(&key) || (started && scope_by_descriptor(key.path)))
        return 0;
    struct scope_event *event = scope_breach(key.scope, SCOPE_EXECUTABLE);
    if (!event)
        return 0;
    bpf_probe_read_kernel_str(event->path, sizeof(event->path), path);
    scope_events.ringbuf_submit(event, NO_WAKEUP);
    return 0;
}
#endif

/* Whether the running task is the agent, or speaks to the agent's own port on loopback: never refused. */
static __always_inline int scope_spared(const u32 *address, u32 port)
{
    int uid_index = 0, port_index = 1;
    u32 *uid = scope_agent.lookup(&uid_index), *own = scope_agent.lookup(&port_index);
    if (!uid || !own)
        return 1;
    if (*uid && (u32)bpf_get_current_uid_gid() == *uid)
        return 1;
    int v4 = !address[0] && !address[1] && address[2] == bpf_htonl(0xffff) && (bpf_ntohl(address[3]) >> 24) == 127;
    int v6 = !address[0] && !address[1] && !address[2] && address[3] == bpf_htonl(1);
    return *own && port == *own && (v4 || v6);
}

/* Count and tell a breach of an address; return the program's verdict: 1 passes, 0 is refused with EPERM. */
static __always_inline int scope_refuse(struct scope_rule *rule, u32 scope, u32 sort, u32 family, const u32 *address,
                                        u32 port)
{
    u32 denied = rule->deny && !scope_spared(address, port);
    struct scope_event *event = scope_breach(scope, sort);
    if (event) {
        event->denied = denied;
        event->family = family;
        event->port = port;
        event->address[0] = address[0];
        event->address[1] = address[1];
        event->address[2] = address[2];
        event->address[3] = address[3];
        scope_events.ringbuf_submit(event, NO_WAKEUP);
    }
    return !denied;
}

/* An address of IPv4 stands as ::ffff:a.b.c.d, so that a socket of either family is judged alike. */
static __always_inline void scope_address(struct bpf_sock_addr *ctx, u32 family, u32 *address)
{
    if (family == SCOPE_INET) {
        address[0] = address[1] = 0;
        address[2] = bpf_htonl(0xffff);
        address[3] = ctx->user_ip4;
    } else {
        address[0] = ctx->user_ip6[0];
        address[1] = ctx->user_ip6[1];
        address[2] = ctx->user_ip6[2];
        address[3] = ctx->user_ip6[3];
    }
}

static __always_inline int scope_send(struct bpf_sock_addr *ctx, u32 family)
{
    u32 scope = scope_here();
    struct scope_rule *rule = scope_limit(scope, SCOPE_DESTINATION);
    if (!rule)
        return 1;
    struct scope_destination key = {};
    scope_address(ctx, family, key.address);
    if (family == SCOPE_INET && !key.address[3])
        key.address[3] = bpf_htonl(0x7f000001); /* the unspecified address is this host */
    else if (!key.address[0] && !key.address[1] && !key.address[2] && !key.address[3])
        key.address[3] = bpf_htonl(1);
    int v4 = !key.address[0] && !key.address[1] && key.address[2] == bpf_htonl(0xffff);
    u32 port = bpf_ntohs(ctx->user_port);
    key.prefix = 160;
    key.scope = v4 ? scope | SCOPE_IPV4 : scope;
    if (scope_destinations.lookup(&key))
        return 1;
    key.port = port;
    if (scope_destinations.lookup(&key))
        return 1;
    return scope_refuse(rule, scope, SCOPE_DESTINATION, family, key.address, port);
}

static __always_inline int scope_take(struct bpf_sock_addr *ctx, u32 family)
{
    /* Port 0 lets the kernel choose, as clients do; and a UDP client often chooses one by itself. */
    if (ctx->type != SCOPE_STREAM || !ctx->user_port)
        return 1;
    u32 scope = scope_here(), address[4];
    struct scope_rule *rule = scope_limit(scope, SCOPE_LISTENER);
    if (!rule)
        return 1;
    struct scope_port key = {};
    key.scope = scope;
    key.port = bpf_ntohs(ctx->user_port);
    if (scope_ports.lookup(&key))
        return 1;
    scope_address(ctx, family, address);
    return scope_refuse(rule, scope, SCOPE_LISTENER, family, address, key.port);
}

int scope_connect4(struct bpf_sock_addr *ctx)
{
    return scope_send(ctx, SCOPE_INET);
}

int scope_connect6(struct bpf_sock_addr *ctx)
{
    return scope_send(ctx, SCOPE_INET6);
}

int scope_sendmsg4(struct bpf_sock_addr *ctx)
{
    return scope_send(ctx, SCOPE_INET);
}

int scope_sendmsg6(struct bpf_sock_addr *ctx)
{
    return scope_send(ctx, SCOPE_INET6);
}

int scope_bind4(struct bpf_sock_addr *ctx)
{
    return scope_take(ctx, SCOPE_INET);
}

int scope_bind6(struct bpf_sock_addr *ctx)
{
    return scope_take(ctx, SCOPE_INET6);
}
