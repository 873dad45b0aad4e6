/* Counts failures of storage, by who told them, device or cgroup, and errno.
 *
 * Of disks: block:block_rq_error. Of filesystems: ext4:ext4_error, ext4:ext4_shutdown, xfs:xfs_force_shutdown,
 * xfs:xfs_delalloc_enospc, and filemap:filemap_set_wb_err, where any filesystem notes that something written
 * before never reached the disk. Of programs: the returns of write, pwrite64, fallocate, fsync and fdatasync that
 * say "no space", "over quota" or "I/O error". A write that succeeds costs one comparison; an open is not looked
 * at, because it is the busiest call of all and only an inode can be missing there. That is told by ext4 itself:
 * what was asked for (ext4:ext4_request_inode) and not given (ext4:ext4_allocate_inode).
 *
 * None of the calls says which filesystem it was: a descriptor leads there only through kernel structures.
 */
#define STORAGE_ERROR_SECOND 1000000000ULL
#define STORAGE_ERROR_EIO 5
#define STORAGE_ERROR_EAGAIN 11
#define STORAGE_ERROR_ENOMEM 12
#define STORAGE_ERROR_EINVAL 22
#define STORAGE_ERROR_ENOSPC 28
#define STORAGE_ERROR_EOPNOTSUPP 95
#define STORAGE_ERROR_EDQUOT 122

enum storage_error_kind {
    STORAGE_ERROR_BLOCK_READ,
    STORAGE_ERROR_BLOCK_WRITE,
    STORAGE_ERROR_FILESYSTEM,
    STORAGE_ERROR_SHUTDOWN,
    STORAGE_ERROR_WRITEBACK,
    STORAGE_ERROR_ALLOCATION,
    STORAGE_ERROR_WRITE,
    STORAGE_ERROR_FALLOCATE,
    STORAGE_ERROR_SYNC,
};

struct storage_error_key {
    u64 cgroup_id; /* of a program's call, else 0 */
    u32 kind;
    u32 device; /* of a disk or filesystem, else 0 */
    s32 error;
    u32 unused;
};

struct storage_error_value {
    u64 count;
    u64 told_ns; /* when the ring last heard of this key */
    u64 last_ns;
    u32 pid;
    u32 unused;
    char process[16];
};

struct storage_error_event {
    u64 cgroup_id;
    u32 kind;
    u32 device;
    s32 error;
    u32 unused;
};

struct storage_error_inode {
    u64 asked;
    u64 given;
};

BPF_TABLE("hash", struct storage_error_key, struct storage_error_value, storage_error_counts, 1024);
BPF_TABLE("hash", struct storage_error_key, u64, storage_error_reported, 1024); /* the reader's own notes */
BPF_TABLE("hash", u32, struct storage_error_inode, storage_error_inodes, 128);
BPF_RINGBUF_OUTPUT(storage_error_events, RING_PAGES(16384));
LEDGER_MAP(storage_error_ledger);

static __always_inline void storage_error_count_lost(void)
{
    int index = LOST;
    u64 *lost = storage_error_ledger.lookup(&index);
    if (lost)
        __sync_fetch_and_add(lost, 1);
}

static __always_inline int storage_error_count(u32 kind, u32 device, s32 error, int of_program)
{
    struct storage_error_key key = {};
    key.kind = kind;
    key.device = device;
    key.error = error;
    if (of_program)
        key.cgroup_id = bpf_get_current_cgroup_id();

    u64 now = bpf_ktime_get_boot_ns();
    struct storage_error_value fresh = {}, *value = storage_error_counts.lookup(&key);
    if (!value) {
        storage_error_counts.insert(&key, &fresh);
        value = storage_error_counts.lookup(&key);
        if (!value) { /* the table is full */
            storage_error_count_lost();
            return 0;
        }
    }
    __sync_fetch_and_add(&value->count, 1);
    value->last_ns = now;
    if (of_program) {
        value->pid = bpf_get_current_pid_tgid() >> 32;
        bpf_get_current_comm(value->process, sizeof(value->process));
    }
    if (value->told_ns && now - value->told_ns < STORAGE_ERROR_SECOND)
        return 0;
    value->told_ns = now;

    struct storage_error_event event = {};
    event.cgroup_id = key.cgroup_id;
    event.kind = kind;
    event.device = device;
    event.error = error;
    if (storage_error_events.ringbuf_output(&event, sizeof(event), NO_WAKEUP))
        storage_error_count_lost();
    return 0;
}

static __always_inline int storage_error_returned(u32 kind, long result)
{
    if (result >= 0)
        return 0;
    if (result == -STORAGE_ERROR_ENOSPC || result == -STORAGE_ERROR_EDQUOT)
        return storage_error_count(kind, 0, (s32)-result, 1);
    /* "I/O error" of a write is also what a terminal says whose session is gone: only a sync means a disk. */
    if (result == -STORAGE_ERROR_EIO && kind == STORAGE_ERROR_SYNC)
        return storage_error_count(kind, 0, STORAGE_ERROR_EIO, 1);
    return 0;
}

#ifdef HAS_block_block_rq_error_error
int storage_error_block(struct tp_block_block_rq_error *args)
{
    u8 letter = args->rwbs[0] == 'F' ? args->rwbs[1] : args->rwbs[0];
    if ((letter != 'R' && letter != 'W') || args->rwbs[1] == 'Z')
        return 0; /* a discard, a flush or a write of zeroes that a disk does not know */
    s32 error = args->error < 0 ? -args->error : args->error;
    if (error == STORAGE_ERROR_EAGAIN || error == STORAGE_ERROR_ENOMEM || error == STORAGE_ERROR_EINVAL ||
        error == STORAGE_ERROR_EOPNOTSUPP)
        return 0; /* asked for what it cannot do, or has no room to do now: nothing of the disk */
    return storage_error_count(letter == 'R' ? STORAGE_ERROR_BLOCK_READ : STORAGE_ERROR_BLOCK_WRITE, args->dev,
                               error, 0);
}
#endif

#ifdef HAS_ext4_ext4_error_dev
int storage_error_ext4(struct tp_ext4_ext4_error *args)
{
    return storage_error_count(STORAGE_ERROR_FILESYSTEM, args->dev, 0, 0);
}
#endif

#ifdef HAS_ext4_ext4_shutdown_dev
int storage_error_ext4_shutdown(struct tp_ext4_ext4_shutdown *args)
{
    return storage_error_count(STORAGE_ERROR_SHUTDOWN, args->dev, 0, 0);
}
#endif

#ifdef HAS_xfs_xfs_force_shutdown_dev
int storage_error_xfs_shutdown(struct tp_xfs_xfs_force_shutdown *args)
{
    return storage_error_count(STORAGE_ERROR_SHUTDOWN, args->dev, 0, 0);
}
#endif

#ifdef HAS_xfs_xfs_delalloc_enospc_dev
int storage_error_xfs_space(struct tp_xfs_xfs_delalloc_enospc *args)
{
    return storage_error_count(STORAGE_ERROR_ALLOCATION, args->dev, STORAGE_ERROR_ENOSPC, 0);
}
#endif

#ifdef HAS_filemap_filemap_set_wb_err_errseq
int storage_error_writeback(struct tp_filemap_filemap_set_wb_err *args)
{
    return storage_error_count(STORAGE_ERROR_WRITEBACK, args->s_dev, 0, 0); /* its errseq is the one before */
}
#endif

#ifdef HAS_syscalls_sys_exit_write_ret
int storage_error_write(struct tp_syscalls_sys_exit_write *args)
{
    return storage_error_returned(STORAGE_ERROR_WRITE, args->ret);
}
#endif

#ifdef HAS_syscalls_sys_exit_pwrite64_ret
int storage_error_pwrite64(struct tp_syscalls_sys_exit_pwrite64 *args)
{
    return storage_error_returned(STORAGE_ERROR_WRITE, args->ret);
}
#endif

#ifdef HAS_syscalls_sys_exit_fallocate_ret
int storage_error_fallocate(struct tp_syscalls_sys_exit_fallocate *args)
{
    return storage_error_returned(STORAGE_ERROR_FALLOCATE, args->ret);
}
#endif

#ifdef HAS_syscalls_sys_exit_fsync_ret
int storage_error_fsync(struct tp_syscalls_sys_exit_fsync *args)
{
    return storage_error_returned(STORAGE_ERROR_SYNC, args->ret);
}
#endif

#ifdef HAS_syscalls_sys_exit_fdatasync_ret
int storage_error_fdatasync(struct tp_syscalls_sys_exit_fdatasync *args)
{
    return storage_error_returned(STORAGE_ERROR_SYNC, args->ret);
}
#endif

static __always_inline struct storage_error_inode *storage_error_inodes_of(u32 device)
{
    struct storage_error_inode fresh = {}, *inodes = storage_error_inodes.lookup(&device);
    if (inodes)
        return inodes;
    storage_error_inodes.insert(&device, &fresh);
    return storage_error_inodes.lookup(&device);
}

#if defined(HAS_ext4_ext4_request_inode_dev) && defined(HAS_ext4_ext4_allocate_inode_dev)
int storage_error_inode_asked(struct tp_ext4_ext4_request_inode *args)
{
    struct storage_error_inode *inodes = storage_error_inodes_of(args->dev);
    if (inodes)
        __sync_fetch_and_add(&inodes->asked, 1);
    return 0;
}

int storage_error_inode_given(struct tp_ext4_ext4_allocate_inode *args)
{
    struct storage_error_inode *inodes = storage_error_inodes_of(args->dev);
    if (inodes)
        __sync_fetch_and_add(&inodes->given, 1);
    return 0;
}
#endif
