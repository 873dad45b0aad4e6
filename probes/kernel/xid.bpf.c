/* Tells of the errors that the NVIDIA driver reports (Xid), by its own tracepoint nvidia:nvidia_dev_xid.
 *
 * The tracepoint belongs to the driver's module and is there from a certain version of it on. It is raised where
 * the driver writes its line into the kernel log, in no context that names a process. Of its record the device's
 * address and the number are read, never the message: that names programs and may quote anything.
 */
#define XID_OFFSET 0xffff /* a __data_loc: the text's place in the record, its length in the upper half */

struct xid_event {
    u64 time_ns;
    u32 number;
    u32 unused;
    char device[32];
};

BPF_RINGBUF_OUTPUT(xid_events, RING_PAGES(65536));
LEDGER_MAP(xid_ledger);

#ifdef HAS_nvidia_nvidia_dev_xid_error_code
int xid_reported(struct tp_nvidia_nvidia_dev_xid *args)
{
    struct xid_event event = {};
    event.time_ns = bpf_ktime_get_boot_ns();
    event.number = args->error_code;
#ifdef HAS_nvidia_nvidia_dev_xid_dev
    bpf_probe_read_kernel_str(event.device, sizeof(event.device), (void *)args + (args->dev & XID_OFFSET));
#endif
    if (xid_events.ringbuf_output(&event, sizeof(event), FORCE_WAKEUP)) {
        int index = LOST;
        u64 *lost = xid_ledger.lookup(&index);
        if (lost)
            __sync_fetch_and_add(lost, 1);
    }
    return 0;
}
#endif
