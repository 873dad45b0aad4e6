/* Counts accepts and sockets that found no descriptor (EMFILE, ENFILE), by process: where the system calls return,
 * syscalls:sys_exit_accept4, sys_exit_accept and sys_exit_socket. Opens are counted by device_open.bpf.c, which
 * already runs at their exit.
 *
 * A call that succeeds costs two compares. What is counted stays in the table, where the reader finds it by the
 * ledger; a server that tries a hundred thousand times a second makes no event of it.
 */
enum descriptors_call { DESCRIPTORS_ACCEPT = 1, DESCRIPTORS_SOCKET };

struct descriptors_key {
    u32 pid;
    u32 call; /* enum descriptors_call */
    s32 error;
    u32 unused;
};

struct descriptors_value {
    u64 count;
    u64 cgroup_id;
    u64 last_ns;
    char process[16];
};

/* Old processes make room for new ones. */
BPF_TABLE("lru_hash", struct descriptors_key, struct descriptors_value, descriptors_counts, 1024);
LEDGER_MAP(descriptors_ledger);

static __always_inline int descriptors_returned(long result, u32 call)
{
    if (result != -24 && result != -23) /* EMFILE, ENFILE */
        return 0;
    struct descriptors_key key = {};
    key.pid = bpf_get_current_pid_tgid() >> 32;
    key.call = call;
    key.error = (s32)-result;
    struct descriptors_value fresh = {}, *value = descriptors_counts.lookup(&key);
    if (!value) {
        fresh.cgroup_id = bpf_get_current_cgroup_id();
        bpf_get_current_comm(fresh.process, sizeof(fresh.process));
        descriptors_counts.insert(&key, &fresh);
        value = descriptors_counts.lookup(&key);
    }
    int index = value ? SENT : LOST;
    if (value) {
        __sync_fetch_and_add(&value->count, 1);
        value->last_ns = bpf_ktime_get_boot_ns();
    }
    u64 *account = descriptors_ledger.lookup(&index);
    if (account)
        __sync_fetch_and_add(account, 1);
    return 0;
}

#ifdef HAS_syscalls_sys_exit_accept4_ret
int descriptors_accept4(struct tp_syscalls_sys_exit_accept4 *args)
{
    return descriptors_returned(args->ret, DESCRIPTORS_ACCEPT);
}
#endif

#ifdef HAS_syscalls_sys_exit_accept_ret
int descriptors_accept(struct tp_syscalls_sys_exit_accept *args)
{
    return descriptors_returned(args->ret, DESCRIPTORS_ACCEPT);
}
#endif

#ifdef HAS_syscalls_sys_exit_socket_ret
int descriptors_socket(struct tp_syscalls_sys_exit_socket *args)
{
    return descriptors_returned(args->ret, DESCRIPTORS_SOCKET);
}
#endif
