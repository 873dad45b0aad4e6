/* Copies what servers read and write through OpenSSL, before it is encrypted and after it is deciphered: uprobes on
 * SSL_read, SSL_read_ex, SSL_write and SSL_write_ex of the libraries that the configuration names, where they return,
 * and on SSL_free. The records go into the capture's own ring and are like those of a connection without TLS.
 *
 * A call costs the program some 20 us, half of it where it begins and half where it returns: that is why this is off
 * unless it is asked for. Which side a process is shows in the first bytes: who reads a request is a server. Clients are left
 * alone, as is a connection whose beginning was not seen until a request begins on it. The socket is not known here, so
 * the port is 0, and a sequence number is a running count. Registers are the user's, whose layout is UAPI.
 */
#if defined(__x86_64__)
#define HTTP_CAPTURE_TLS_FIRST 14 /* di, asm/ptrace.h */
#define HTTP_CAPTURE_TLS_SECOND 13 /* si */
#define HTTP_CAPTURE_TLS_FOURTH 11 /* cx */
#define HTTP_CAPTURE_TLS_RESULT 10 /* ax */
#elif defined(__aarch64__)
#define HTTP_CAPTURE_TLS_FIRST 0
#define HTTP_CAPTURE_TLS_SECOND 1
#define HTTP_CAPTURE_TLS_FOURTH 3
#define HTTP_CAPTURE_TLS_RESULT 0
#endif
#define HTTP_CAPTURE_TLS_SERVER 1
#define HTTP_CAPTURE_TLS_CLIENT 2

struct http_capture_tls_call {
    u64 ssl;
    u64 data;
    u64 count; /* where the _ex functions put how many bytes it were; 0: they return it */
};

struct http_capture_tls_connection {
    u64 tgid;
    u64 ssl;
};

struct http_capture_tls_state {
    u32 role;
    u32 read;
    u32 written;
    u32 unused;
};

BPF_TABLE("lru_hash", u64, struct http_capture_tls_call, http_capture_tls_calls, 4096);
BPF_TABLE("lru_hash", struct http_capture_tls_connection, struct http_capture_tls_state, http_capture_tls_states, 8192);

static __always_inline int http_capture_tls_begin(u64 ssl, u64 data, u64 count)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct http_capture_tls_call call = {};
    call.ssl = ssl;
    call.data = data;
    call.count = count;
    http_capture_tls_calls.update(&thread, &call);
    return 0;
}

/* Whether a request begins so: the methods of RFC 9110 that have four letters in common with none of a response, and
 * the preface of HTTP/2. */
static __always_inline int http_capture_tls_is_request(u64 data)
{
    u32 word = 0;
    if (bpf_probe_read_user(&word, sizeof(word), (void *)data))
        return 0;
    switch (bpf_ntohl(word)) {
    case 0x47455420: /* "GET " */
    case 0x504f5354: /* "POST" */
    case 0x50555420: /* "PUT " */
    case 0x48454144: /* "HEAD" */
    case 0x44454c45: /* "DELE" */
    case 0x4f505449: /* "OPTI" */
    case 0x50415443: /* "PATC" */
    case 0x50524920: /* "PRI " */
        return 1;
    }
    return 0;
}

static __always_inline void http_capture_tls_head(struct http_capture_event *head,
                                                  struct http_capture_tls_connection *key)
{
    head->time_ns = bpf_ktime_get_boot_ns();
    head->cgroup_id = bpf_get_current_cgroup_id();
    head->connection = http_capture_mix(http_capture_mix(head->cgroup_id, key->tgid), key->ssl);
}

static __always_inline int http_capture_tls_end(long result, u8 reads)
{
    u64 thread = bpf_get_current_pid_tgid();
    struct http_capture_tls_call *found = http_capture_tls_calls.lookup(&thread);
    if (!found)
        return 0;
    struct http_capture_tls_call call = *found;
    http_capture_tls_calls.delete(&thread);
    s32 length = result;
    if (call.count) {
        u64 count = 0;
        if (length != 1 || bpf_probe_read_user(&count, sizeof(count), (void *)call.count) || count > 0x7fffffff)
            return 0;
        length = count;
    }
    if (length <= 0)
        return 0;

    struct http_capture_tls_connection key = {};
    key.tgid = thread >> 32;
    key.ssl = call.ssl;
    struct http_capture_tls_state fresh = {}, *state = http_capture_tls_states.lookup(&key);
    if (!state) {
        http_capture_tls_states.update(&key, &fresh);
        state = http_capture_tls_states.lookup(&key);
        if (!state)
            return 0;
    }
    if (!state->role && http_capture_tls_is_request(call.data))
        state->role = reads ? HTTP_CAPTURE_TLS_SERVER : HTTP_CAPTURE_TLS_CLIENT;
    if (state->role != HTTP_CAPTURE_TLS_SERVER)
        return 0;

    struct http_capture_event head = {};
    http_capture_tls_head(&head, &key);
    head.to_server = reads;
    u32 seq = reads ? state->read : state->written;
    if (reads)
        state->read += length;
    else
        state->written += length;
    http_capture_cut(0, &head, call.data, seq, length, 0);
    return 0;
}

int http_capture_tls_enter(u64 *registers)
{
    return http_capture_tls_begin(registers[HTTP_CAPTURE_TLS_FIRST], registers[HTTP_CAPTURE_TLS_SECOND], 0);
}

int http_capture_tls_enter_ex(u64 *registers)
{
    return http_capture_tls_begin(registers[HTTP_CAPTURE_TLS_FIRST], registers[HTTP_CAPTURE_TLS_SECOND],
                                  registers[HTTP_CAPTURE_TLS_FOURTH]);
}

int http_capture_tls_has_read(u64 *registers)
{
    return http_capture_tls_end(registers[HTTP_CAPTURE_TLS_RESULT], 1);
}

int http_capture_tls_has_written(u64 *registers)
{
    return http_capture_tls_end(registers[HTTP_CAPTURE_TLS_RESULT], 0);
}

/* The end of a connection, whoever ended it: both directions are closed. */
int http_capture_tls_free(u64 *registers)
{
    struct http_capture_tls_connection key = {};
    key.tgid = bpf_get_current_pid_tgid() >> 32;
    key.ssl = registers[HTTP_CAPTURE_TLS_FIRST];
    struct http_capture_tls_state *state = http_capture_tls_states.lookup(&key);
    if (!state)
        return 0;
    struct http_capture_event head = {};
    http_capture_tls_head(&head, &key);
    head.flags = HTTP_CAPTURE_FIN;
    head.seq = state->written;
    u32 read = state->read, role = state->role;
    http_capture_tls_states.delete(&key);
    if (role != HTTP_CAPTURE_TLS_SERVER)
        return 0;
    http_capture_put(0, &head, 0, 0);
    head.seq = read;
    head.to_server = 1;
    http_capture_put(0, &head, 0, 0);
    return 0;
}
