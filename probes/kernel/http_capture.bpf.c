/* Copies what a server's sockets of chosen ports receive and send: TCP payload, SYN, FIN and RST, as cgroup_skb
 * programs see it in both directions at the root of the cgroup v2 hierarchy.
 *
 * The programs run at the socket, so loopback inside a container is seen, each byte once, and `local_port` is the
 * server's: compared with constants, which the loader writes into the program (HTTP_CAPTURE_PORTS), because a table
 * costs every packet of the machine a read of memory. All others go on their way. The programs read the packet's bytes
 * and fields of struct __sk_buff, both of the kernel's user interface. They always return 1: a 0 would drop the packet.
 *
 * A connection is told by a hash of its addresses and ports and of the socket's cgroup, not by the socket's cookie: a
 * SYN, its answer, and data that completes a handshake pass while the listening socket still stands for the
 * connection, with the listener's cookie.
 *
 * A long segment goes out in pieces. Of an answer 128 KiB and the last 1 KiB are copied, of a request the first 4 KiB
 * and the last 1 KiB: clients put the model and the flags before or after all messages. Records come in few sizes,
 * since the kernel reserves room of a constant size only. What follows a piece and is not copied is `skipped`.
 *
 * No record wakes the reader, whose timer is enough, until a quarter of the ring waits to be read.
 */
#define HTTP_CAPTURE_RING 1048576
#define HTTP_CAPTURE_STEP (HTTP_CAPTURE_RING / 8)
#define HTTP_CAPTURE_IN_RING(room) (8 + sizeof(struct http_capture_event) + (room)) /* 8: BPF_RINGBUF_HDR_SZ */
#define HTTP_CAPTURE_PIECE 16384
#define HTTP_CAPTURE_ANSWER 131072
#define HTTP_CAPTURE_REQUEST 4096
#define HTTP_CAPTURE_TAIL 1024
#define HTTP_CAPTURE_PIECES 9 /* eight of an answer and a tail */
#define HTTP_CAPTURE_TCP 6
#define HTTP_CAPTURE_HOP_BY_HOP 0 /* RFC 8200; the kernel's own segments over 64 KiB have one, RFC 2675 */
#define HTTP_CAPTURE_FIN 0x01
#define HTTP_CAPTURE_SYN 0x02
#define HTTP_CAPTURE_RST 0x04

struct http_capture_event {
    u64 time_ns;
    u64 connection;
    u64 cgroup_id; /* of the server's socket */
    u32 seq;       /* of the first byte that follows, or of the SYN */
    u32 captured;  /* bytes that follow */
    u32 skipped;   /* bytes after them that are in no record */
    u16 port;
    u8 to_server;
    u8 flags; /* SYN alone, without data; FIN and RST with the last piece */
};

struct http_capture_ipv4 {
    u8 first;
    u8 service;
    u16 length;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 checksum;
    u32 source;
    u32 target;
};

struct http_capture_ipv6 {
    u32 first;
    u16 length;
    u8 protocol;
    u8 hops;
    u64 source[2];
    u64 target[2];
};

struct http_capture_option {
    u8 protocol;
    u8 length; /* in 8 bytes, less the first */
    u8 rest[6];
};

struct http_capture_tcp {
    u16 source;
    u16 target;
    u32 seq;
    u32 acknowledged;
    u8 offset;
    u8 flags;
    u16 window;
};

BPF_RINGBUF_OUTPUT(http_capture_events, RING_PAGES(HTTP_CAPTURE_RING));
LEDGER_MAP(http_capture_ledger);

static __always_inline u64 http_capture_mix(u64 hash, u64 word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
}

/* Submit one record with `room` bytes after its head, of which head->captured are taken from `at`: a place in the
 * packet, or where there is no packet an address of the running process. */
static __always_inline void http_capture_put(struct __sk_buff *skb, struct http_capture_event *head, u64 at,
                                             const u64 room)
{
    int lost_index = LOST, sent_index = SENT, taken_index = TAKEN;
    u64 *lost = http_capture_ledger.lookup(&lost_index), *sent = http_capture_ledger.lookup(&sent_index),
        *taken = http_capture_ledger.lookup(&taken_index);
    if (!lost || !sent || !taken)
        return;
    struct http_capture_event *event = http_capture_events.ringbuf_reserve(sizeof(*head) + room);
    if (!event) {
        __sync_fetch_and_add(lost, 1);
        return;
    }
    *event = *head;
    if (room) {
        u32 bytes = head->captured - 1;
        asm volatile("" : "+r"(bytes)); /* the compiler knows that the next line changes nothing, the verifier does not */
        bytes = (bytes & (room - 1)) + 1;
        if (skb ? bpf_skb_load_bytes(skb, at, event + 1, bytes)
                : bpf_probe_read_user(event + 1, bytes, (void *)at)) {
            event->captured = 0;
            event->skipped += bytes;
        }
    }
    __sync_fetch_and_add(sent, HTTP_CAPTURE_IN_RING(room));
    u64 unread = *sent - *taken, before = unread - HTTP_CAPTURE_IN_RING(room);
    u64 wake = unread >= HTTP_CAPTURE_RING / 4 && unread / HTTP_CAPTURE_STEP != before / HTTP_CAPTURE_STEP;
    http_capture_events.ringbuf_submit(event, wake ? FORCE_WAKEUP : NO_WAKEUP);
}

static __always_inline void http_capture_piece(struct __sk_buff *skb, struct http_capture_event *head, u64 at)
{
    u32 bytes = head->captured;
    if (!bytes)
        http_capture_put(skb, head, at, 0);
    else if (bytes <= 256)
        http_capture_put(skb, head, at, 256);
    else if (bytes <= 512)
        http_capture_put(skb, head, at, 512);
    else if (bytes <= 1024)
        http_capture_put(skb, head, at, 1024);
    else if (bytes <= 2048)
        http_capture_put(skb, head, at, 2048);
    else if (bytes <= 4096)
        http_capture_put(skb, head, at, 4096);
    else if (bytes <= 8192)
        http_capture_put(skb, head, at, 8192);
    else
        http_capture_put(skb, head, at, 16384);
}

/* Submit `length` bytes that begin at `at` and are number `seq` of their stream, in pieces, the flags with the last. */
static __always_inline void http_capture_cut(struct __sk_buff *skb, struct http_capture_event *head, u64 at, u32 seq,
                                             u32 length, u8 flags)
{
    u32 whole = head->to_server ? HTTP_CAPTURE_REQUEST : HTTP_CAPTURE_ANSWER, from = 0;
    for (int i = 0; i < HTTP_CAPTURE_PIECES; i++) {
        u32 bytes = length - from, most = from < whole ? whole - from : HTTP_CAPTURE_TAIL;
        if (most > HTTP_CAPTURE_PIECE)
            most = HTTP_CAPTURE_PIECE;
        if (bytes > most)
            bytes = most;
        u32 next = from + bytes;
        if (next >= whole && length - next > HTTP_CAPTURE_TAIL)
            next = length - HTTP_CAPTURE_TAIL;
        head->seq = seq + from;
        head->captured = bytes;
        head->skipped = next - from - bytes;
        head->flags = next < length ? 0 : flags;
        http_capture_piece(skb, head, at + from);
        if (next >= length)
            break;
        from = next;
    }
}

/* Find the TCP header and name the connection by its addresses; return where the header begins, or 0. */
static __always_inline u32 http_capture_find(struct __sk_buff *skb, struct http_capture_event *head)
{
    u64 server, server_high = 0, client, client_high = 0;
    u32 at;
    struct http_capture_ipv4 ip4;

    if (bpf_skb_load_bytes(skb, 0, &ip4, sizeof(ip4)))
        return 0;
    if (ip4.first >> 4 == 4) {
        if (ip4.protocol != HTTP_CAPTURE_TCP || bpf_ntohs(ip4.fragment) & 0x3fff)
            return 0;
        at = (ip4.first & 15) * 4;
        server = head->to_server ? ip4.target : ip4.source;
        client = head->to_server ? ip4.source : ip4.target;
    } else {
        struct http_capture_ipv6 ip;
        if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
            return 0;
        at = sizeof(ip);
        if (ip.protocol == HTTP_CAPTURE_HOP_BY_HOP) {
            struct http_capture_option option;
            if (bpf_skb_load_bytes(skb, at, &option, sizeof(option)))
                return 0;
            ip.protocol = option.protocol;
            at += 8 + option.length * 8;
        }
        if (ip.protocol != HTTP_CAPTURE_TCP)
            return 0;
        server = head->to_server ? ip.target[0] : ip.source[0];
        server_high = head->to_server ? ip.target[1] : ip.source[1];
        client = head->to_server ? ip.source[0] : ip.target[0];
        client_high = head->to_server ? ip.source[1] : ip.target[1];
    }
    u64 hash = http_capture_mix(http_capture_mix(0, server), client);
    head->connection = http_capture_mix(http_capture_mix(hash, server_high), client_high);
    return at;
}

static __always_inline int http_capture_watched(u32 port)
{
    switch (port) {
        HTTP_CAPTURE_PORTS
        return 1;
    default:
        return 0;
    }
}

static __always_inline int http_capture_packet(struct __sk_buff *skb, u8 to_server)
{
    u32 port = skb->local_port;
    if (__builtin_expect(port ? !http_capture_watched(port) : to_server, 1))
        return 1;

    struct http_capture_event head = {};
    struct http_capture_tcp tcp;
    head.to_server = to_server;
    u32 at = http_capture_find(skb, &head);
    if (!at || bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
        return 1;
    if (!port) { /* the reset of a socket that has given its port back already */
        port = bpf_ntohs(tcp.source);
        if (!http_capture_watched(port))
            return 1;
    }
    at += (tcp.offset >> 4) * 4;
    /* The packet's own length: the header's is 0 for a segment that the kernel will cut later. */
    u32 length = skb->len > at ? skb->len - at : 0;
    u8 flags = tcp.flags & (HTTP_CAPTURE_SYN | HTTP_CAPTURE_FIN | HTTP_CAPTURE_RST);
    if (!length && !flags)
        return 1;

    u32 seq = bpf_ntohl(tcp.seq);
    u16 other = to_server ? tcp.source : tcp.target;
    head.time_ns = bpf_ktime_get_boot_ns();
    head.cgroup_id = bpf_skb_cgroup_id(skb);
    head.connection = http_capture_mix(http_capture_mix(head.connection, head.cgroup_id), (u64)port << 16 | other);
    head.port = port;
    if (flags & HTTP_CAPTURE_SYN) {
        head.seq = seq++;
        head.flags = HTTP_CAPTURE_SYN;
        http_capture_put(skb, &head, at, 0);
        flags &= ~HTTP_CAPTURE_SYN;
        if (!length && !flags)
            return 1;
    }

    http_capture_cut(skb, &head, at, seq, length, flags);
    return 1;
}

int http_capture_ingress(struct __sk_buff *skb)
{
    return http_capture_packet(skb, 1);
}

int http_capture_egress(struct __sk_buff *skb)
{
    return http_capture_packet(skb, 0);
}
