/* How long disks take: histograms of the time from handing a request to the disk to its completion, by disk and
 * direction, in a table: block:block_rq_issue and block:block_rq_complete.
 *
 * A request is known by its disk and first sector, which both records tell. One that is completed in parts counts
 * with its first part; one that the disk sends back is issued anew. Requests that neither read nor write (flush,
 * discard, passthrough) are left out. Nothing is told as it happens: the reader takes the differences.
 */
#define BLOCK_CLASSES 26 /* powers of two of a microsecond: the last is all above 16 s */
#define BLOCK_WRITES 1

struct block_request {
    u64 sector;
    u32 device;
    u32 unused;
};

struct block_key {
    u32 device;
    u32 writes;
};

struct block_value {
    u64 bytes;
    u64 time_ns;
    u64 classes[BLOCK_CLASSES];
};

BPF_TABLE("lru_hash", struct block_request, u64, block_started, 8192);
BPF_TABLE("hash", struct block_key, struct block_value, block_latency, 256);

/* rwbs (blk_fill_rwbs in the kernel): R or W, after an F where a flush comes first. */
static __always_inline int block_direction(const u8 *rwbs)
{
    u8 letter = rwbs[0] == 'F' ? rwbs[1] : rwbs[0];
    return letter == 'R' ? 0 : letter == 'W' ? BLOCK_WRITES : -1;
}

#if defined(HAS_block_block_rq_issue_rwbs) && defined(HAS_block_block_rq_complete_rwbs)
int block_issued(struct tp_block_block_rq_issue *args)
{
    if (!args->nr_sector || block_direction(args->rwbs) < 0)
        return 0;
    struct block_request request = {};
    request.sector = args->sector;
    request.device = args->dev;
    u64 now = bpf_ktime_get_ns();
    block_started.update(&request, &now);
    return 0;
}

int block_completed(struct tp_block_block_rq_complete *args)
{
    int writes = block_direction(args->rwbs);
    if (!args->nr_sector || writes < 0)
        return 0;
    struct block_request request = {};
    request.sector = args->sector;
    request.device = args->dev;
    u64 *started = block_started.lookup(&request);
    if (!started)
        return 0;
    u64 took = bpf_ktime_get_ns() - *started;
    block_started.delete(&request);

    struct block_key key = {};
    key.device = args->dev;
    key.writes = writes;
    struct block_value fresh = {}, *value = block_latency.lookup(&key);
    if (!value) {
        block_latency.insert(&key, &fresh);
        value = block_latency.lookup(&key);
        if (!value) /* more disks than the table holds: they are not told */
            return 0;
    }
    __sync_fetch_and_add(&value->bytes, (u64)args->nr_sector << 9);
    __sync_fetch_and_add(&value->time_ns, took);
    u64 us = took / 1000, class = us ? bpf_log2l(us) : 0; /* bcc's: 1 for 1 us, 2 for 2 and 3 us, ... */
    if (class >= BLOCK_CLASSES)
        class = BLOCK_CLASSES - 1;
    __sync_fetch_and_add(&value->classes[class], 1);
    return 0;
}
#endif
