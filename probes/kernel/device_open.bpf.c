/* Counts the opens of /dev/nvidia* by cgroup, device and result, where the system calls return:
 * syscalls:sys_exit_openat, sys_exit_openat2 and, on x86-64, sys_exit_open.
 *
 * At the exit both the result and the path pointer are at hand, so one program per call is enough: the user's
 * registers (whose layout is UAPI) still hold the pointer. A pair of programs on enter and exit costs twice the
 * dispatch. Every other path costs one read of eight bytes of user memory, and a result that says whether the process
 * has run out of descriptors (EMFILE, ENFILE) one compare: they are counted here for the sensor of descriptors.bpf.c.
 */
#define DEVICE_OPEN_PREFIX 0x69766e2f7665642fULL /* "/dev/nvi", little endian */
#define DEVICE_OPEN_SECOND 1000000000ULL

#if defined(__x86_64__)
#define USER_ARGUMENT_0 14 /* di, asm/ptrace.h */
#define USER_ARGUMENT_1 13 /* si */
#elif defined(__aarch64__)
#define USER_ARGUMENT_0 0 /* x0: already holds the result when the call returns */
#define USER_ARGUMENT_1 1
#endif

enum device_open_kind {
    DEVICE_OPEN_OTHER,
    DEVICE_OPEN_GPU,
    DEVICE_OPEN_CONTROL,
    DEVICE_OPEN_UVM,
    DEVICE_OPEN_UVM_TOOLS,
    DEVICE_OPEN_MODESET,
};

struct device_open_key {
    u64 cgroup_id;
    u32 device; /* enum device_open_kind */
    s32 minor;  /* of a GPU, else -1 */
    s32 error;  /* 0: opened */
    u32 unused;
};

struct device_open_value {
    u64 count;
    u64 told_ns;     /* when the ring last heard of this key */
    u64 last_ns;
    u64 successes;   /* of the cgroup on any NVIDIA node, when this was last counted */
    u32 pid;
    u32 unused;
    char process[16];
};

struct device_open_event {
    u64 cgroup_id;
    u32 device;
    s32 minor;
    s32 error;
    u32 unused;
};

struct device_open_starved_key {
    u32 pid;
    s32 error;
};

struct device_open_starved_value {
    u64 count;
    u64 cgroup_id;
    u64 last_ns;
    char process[16];
};

BPF_TABLE("hash", struct device_open_key, struct device_open_value, device_open_counts, 4096);
BPF_TABLE("hash", struct device_open_key, u64, device_open_reported, 4096); /* the reader's own notes */
BPF_TABLE("hash", u64, u64, device_open_successes, 2048);
BPF_RINGBUF_OUTPUT(device_open_events, RING_PAGES(65536));
LEDGER_MAP(device_open_ledger);
BPF_TABLE("lru_hash", struct device_open_starved_key, struct device_open_starved_value, device_open_starved, 1024);
LEDGER_MAP(device_open_starved_ledger);

static void *(*device_open_task)(void) = (void *)BPF_FUNC_get_current_task_btf;
static u64 *(*device_open_registers)(void *) = (void *)BPF_FUNC_task_pt_regs;

static __always_inline void device_open_count_lost(void)
{
    int index = LOST;
    u64 *lost = device_open_ledger.lookup(&index);
    if (lost)
        __sync_fetch_and_add(lost, 1);
}

static __always_inline void device_open_classify(const char *name, struct device_open_key *key)
{
    /* name is what follows "/dev/nvi" */
    key->device = DEVICE_OPEN_OTHER;
    key->minor = -1;
    if (name[3] >= '0' && name[3] <= '9') {
        int minor = name[3] - '0', i = 4;
        if (name[4] >= '0' && name[4] <= '9') {
            minor = minor * 10 + name[4] - '0';
            i = 5;
            if (name[5] >= '0' && name[5] <= '9') {
                minor = minor * 10 + name[5] - '0';
                i = 6;
            }
        }
        if (minor <= 255 && ((i == 4 && !name[4]) || (i == 5 && !name[5]) || (i == 6 && !name[6]))) {
            key->device = DEVICE_OPEN_GPU;
            key->minor = minor;
        }
        return;
    }
    if (name[3] == 'c' && name[4] == 't' && name[5] == 'l' && !name[6])
        key->device = DEVICE_OPEN_CONTROL;
    else if (name[3] == '-' && name[4] == 'u' && name[5] == 'v' && name[6] == 'm') {
        if (!name[7])
            key->device = DEVICE_OPEN_UVM;
        else if (name[7] == '-' && name[8] == 't' && name[9] == 'o' && name[10] == 'o' && name[11] == 'l' &&
                 name[12] == 's' && !name[13])
            key->device = DEVICE_OPEN_UVM_TOOLS;
    } else if (name[3] == '-' && name[4] == 'm' && name[5] == 'o' && name[6] == 'd' && name[7] == 'e' &&
               name[8] == 's' && name[9] == 'e' && name[10] == 't' && !name[11])
        key->device = DEVICE_OPEN_MODESET;
}

static __always_inline void device_open_starve(long result)
{
    struct device_open_starved_key key = {};
    key.pid = bpf_get_current_pid_tgid() >> 32;
    key.error = (s32)-result;
    struct device_open_starved_value fresh = {}, *value = device_open_starved.lookup(&key);
    if (!value) {
        fresh.cgroup_id = bpf_get_current_cgroup_id();
        bpf_get_current_comm(fresh.process, sizeof(fresh.process));
        device_open_starved.insert(&key, &fresh);
        value = device_open_starved.lookup(&key);
    }
    int index = value ? SENT : LOST;
    if (value) {
        __sync_fetch_and_add(&value->count, 1);
        value->last_ns = bpf_ktime_get_boot_ns();
    }
    u64 *account = device_open_starved_ledger.lookup(&index);
    if (account)
        __sync_fetch_and_add(account, 1);
}

static __always_inline int device_open_returned(long result, int argument)
{
    if ((u64)(result + 24) < 2) /* EMFILE, ENFILE */
        device_open_starve(result);

    u64 head = 0;
    u64 *registers = device_open_registers(device_open_task());
    char *path = (char *)registers[argument];

    if (bpf_probe_read_user(&head, sizeof(head), path) || head != DEVICE_OPEN_PREFIX)
        return 0;

    char name[16] = {};
    bpf_probe_read_user_str(name, sizeof(name), path + 8);
    if (name[0] != 'd' || name[1] != 'i' || name[2] != 'a')
        return 0;

    struct device_open_key key = {};
    key.cgroup_id = bpf_get_current_cgroup_id();
    key.error = result < 0 ? (s32)-result : 0;
    device_open_classify(name, &key);

    u64 now = bpf_ktime_get_boot_ns();
    u64 none = 0, one = 1, *successes = device_open_successes.lookup(&key.cgroup_id);
    u64 before = successes ? *successes : 0;
    if (result >= 0) {
        if (successes)
            __sync_fetch_and_add(successes, 1);
        else if (device_open_successes.insert(&key.cgroup_id, &one)) {
            successes = device_open_successes.lookup(&key.cgroup_id);
            if (successes)
                __sync_fetch_and_add(successes, 1);
        }
    }

    struct device_open_value fresh = {}, *value = device_open_counts.lookup(&key);
    if (!value) {
        device_open_counts.insert(&key, &fresh);
        value = device_open_counts.lookup(&key);
        if (!value) { /* the table is full */
            device_open_count_lost();
            return 0;
        }
    }
    __sync_fetch_and_add(&value->count, 1);
    value->last_ns = now;
    value->successes = before;
    value->pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(value->process, sizeof(value->process));
    if (value->told_ns && now - value->told_ns < DEVICE_OPEN_SECOND)
        return 0;
    value->told_ns = now;

    struct device_open_event event = {};
    event.cgroup_id = key.cgroup_id;
    event.device = key.device;
    event.minor = key.minor;
    event.error = key.error;
    u64 flags = event.error ? FORCE_WAKEUP : NO_WAKEUP;
    if (device_open_events.ringbuf_output(&event, sizeof(event), flags))
        device_open_count_lost();
    return 0;
}

#ifdef HAS_syscalls_sys_exit_openat_ret
int device_open_openat(struct tp_syscalls_sys_exit_openat *args)
{
    return device_open_returned(args->ret, USER_ARGUMENT_1);
}
#endif

#ifdef HAS_syscalls_sys_exit_openat2_ret
int device_open_openat2(struct tp_syscalls_sys_exit_openat2 *args)
{
    return device_open_returned(args->ret, USER_ARGUMENT_1);
}
#endif

#if defined(HAS_syscalls_sys_exit_open_ret) && defined(__x86_64__)
int device_open_open(struct tp_syscalls_sys_exit_open *args)
{
    return device_open_returned(args->ret, USER_ARGUMENT_0);
}
#endif
