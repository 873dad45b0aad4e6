/* Tells when the cgroup of a service or container is made and removed: cgroup:cgroup_mkdir, cgroup:cgroup_rmdir.
 *
 * The record names the cgroup by its id and its path from the root of its hierarchy. Only the v2 hierarchy
 * counts (its number is 0, as in /proc/PID/cgroup), and only what a path's end shows to be a service or a
 * container: `NAME.service`, `ENGINE-ID.scope`, or a folder named by an ID of 64 digits. Logins and the like
 * leave after that look. A path of more than CGROUPS_PATH bytes is not told.
 */
#define CGROUPS_PATH 256
#define CGROUPS_ID 64

struct cgroups_event {
    u64 time_ns;
    u64 cgroup_id;
    u32 made; /* 1: made, 0: removed */
    u32 unused;
    char path[CGROUPS_PATH];
};

BPF_RINGBUF_OUTPUT(cgroups_events, RING_PAGES(131072));
LEDGER_MAP(cgroups_ledger);

/* The byte `back` bytes before the end of a text of `length`, 0 where there is none. */
static __always_inline char cgroups_before_end(struct cgroups_event *event, u32 length, u32 back)
{
    return back <= length ? event->path[(length - back) & (CGROUPS_PATH - 1)] : 0;
}

static __always_inline int cgroups_matters(struct cgroups_event *event, u32 length)
{
    if (cgroups_before_end(event, length, 8) == '.' && cgroups_before_end(event, length, 7) == 's' &&
        cgroups_before_end(event, length, 6) == 'e' && cgroups_before_end(event, length, 1) == 'e')
        return 1;
    if (cgroups_before_end(event, length, 6) == '.' && cgroups_before_end(event, length, 5) == 's' &&
        cgroups_before_end(event, length, 4) == 'c')
        return cgroups_before_end(event, length, 6 + CGROUPS_ID + 1) == '-';
    return cgroups_before_end(event, length, CGROUPS_ID + 1) == '/';
}

static __always_inline void cgroups_tell(void *record, u32 location, u64 id, u32 made)
{
    struct cgroups_event event = {};
    /* Of a text in a record the kernel says offset (low half) and length. */
    int size = bpf_probe_read_kernel_str(event.path, sizeof(event.path), (char *)record + (location & 0xffff));
    if (size <= 1 || size >= CGROUPS_PATH || !cgroups_matters(&event, size - 1))
        return;
    event.time_ns = bpf_ktime_get_boot_ns();
    event.cgroup_id = id;
    event.made = made;
    int lost_index = LOST, sent_index = SENT;
    u64 *lost = cgroups_ledger.lookup(&lost_index), *sent = cgroups_ledger.lookup(&sent_index);
    if (!lost || !sent)
        return;
    __sync_fetch_and_add(sent, 1);
    u64 flags = *sent % (WAKE_EVERY / 4) ? NO_WAKEUP : FORCE_WAKEUP;
    if (cgroups_events.ringbuf_output(&event, sizeof(event), flags))
        __sync_fetch_and_add(lost, 1);
}

#ifdef HAS_cgroup_cgroup_mkdir_path
int cgroups_made(struct tp_cgroup_cgroup_mkdir *args)
{
    if (!args->root)
        cgroups_tell(args, args->path, args->id, 1);
    return 0;
}
#endif

#ifdef HAS_cgroup_cgroup_rmdir_path
int cgroups_removed(struct tp_cgroup_cgroup_rmdir *args)
{
    if (!args->root)
        cgroups_tell(args, args->path, args->id, 0);
    return 0;
}
#endif
