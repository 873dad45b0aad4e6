/* Counts direct reclaim by control group: tasks that have to make room for themselves before they get memory, at
 * vmscan:mm_vmscan_direct_reclaim_begin (the host's memory is short) and mm_vmscan_memcg_reclaim_begin (a group is
 * at its own limit). Both run in the task that waits, so its group is at hand.
 */
struct reclaim_key {
    u64 cgroup_id;
};

struct reclaim_value {
    u64 count;
    u64 by_limit;
    u64 last_ns;
    u32 pid;
    u32 unused;
};

BPF_TABLE("lru_hash", struct reclaim_key, struct reclaim_value, reclaim_counts, 2048);
LEDGER_MAP(reclaim_ledger);

static __always_inline int reclaim_begins(int by_limit)
{
    struct reclaim_key key = {};
    key.cgroup_id = bpf_get_current_cgroup_id();
    struct reclaim_value fresh = {}, *value = reclaim_counts.lookup(&key);
    if (!value) {
        reclaim_counts.insert(&key, &fresh);
        value = reclaim_counts.lookup(&key);
    }
    int index = value ? SENT : LOST;
    if (value) {
        __sync_fetch_and_add(&value->count, 1);
        if (by_limit)
            __sync_fetch_and_add(&value->by_limit, 1);
        value->last_ns = bpf_ktime_get_boot_ns();
        value->pid = bpf_get_current_pid_tgid() >> 32;
    }
    u64 *account = reclaim_ledger.lookup(&index);
    if (account)
        __sync_fetch_and_add(account, 1);
    return 0;
}

#ifdef HAS_vmscan_mm_vmscan_direct_reclaim_begin_order
int reclaim_of_host(struct tp_vmscan_mm_vmscan_direct_reclaim_begin *args)
{
    return reclaim_begins(0);
}
#endif

#ifdef HAS_vmscan_mm_vmscan_memcg_reclaim_begin_order
int reclaim_of_group(struct tp_vmscan_mm_vmscan_memcg_reclaim_begin *args)
{
    return reclaim_begins(1);
}
#endif
