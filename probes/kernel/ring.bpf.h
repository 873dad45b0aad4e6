/* What every program here shares about ring buffers.
 *
 * A wakeup costs the traced task some 3 us, ten times the event itself, so an event waits for the reader's
 * timer. Every WAKE_EVERY-th event wakes the reader all the same, so that a storm does not overrun the
 * ring between two ticks; rare, grave events always do. What did not fit is counted.
 */
#define NO_WAKEUP 1UL    /* BPF_RB_NO_WAKEUP */
#define FORCE_WAKEUP 2UL /* BPF_RB_FORCE_WAKEUP */
#define WAKE_EVERY 512

/* A ring's size is a power of two and whole pages of the running kernel, which has up to 64 KiB. */
#define RING_PAGES(bytes) ((bytes) > PAGE_SIZE ? (bytes) / PAGE_SIZE : 1)

/* A ledger: [LOST] events that did not fit, [SENT] events submitted (bytes of the ring where their sizes differ). The
 * rest are the reader's own notes, which outlive it: [TOLD] how many losses it has reported, [SETTLED] up to which
 * position of the ring everything is judged and on disk, [TAKEN] up to which it is read.
 *
 * The reader maps it into its memory, because looking it up by system call would switch every tracepoint program
 * of that CPU off for the moment, and for as long as the reader is preempted in there.
 */
#define LOST 0
#define SENT 1
#define TOLD 2
#define SETTLED 3
#define TAKEN 4
#define LEDGER 5
#define LEDGER_MAP(name) BPF_F_TABLE("array", int, u64, name, LEDGER, BPF_F_MMAPABLE)
