/* A libnvidia-ml.so.1 without a GPU: every call that the product uses, answered from a state file.
 *
 * The file named by FAKE_NVML_STATE is read again whenever it changes, so that a test changes the GPU under a
 * running process. One statement a line; the words are explained in profiles.py. What a GPU is not given is
 * NVML_ERROR_NOT_SUPPORTED. The structures and constants come from nvml.h, which is written from pynvml's own
 * definitions when the library is built: nothing is mirrored here by hand.
 */
#define _GNU_SOURCE
#include <libgen.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "nvml.h"

#define CALLS(X)                                                                                            \
    X(nvmlInitWithFlags) X(nvmlShutdown) X(nvmlErrorString) X(nvmlSystemGetDriverVersion)                   \
    X(nvmlSystemGetNVMLVersion) X(nvmlDeviceGetCount_v2) X(nvmlDeviceGetHandleByIndex_v2)                   \
    X(nvmlDeviceGetUUID) X(nvmlDeviceGetName) X(nvmlDeviceGetPciInfo_v3) X(nvmlDeviceGetMigMode)            \
    X(nvmlDeviceGetMaxMigDeviceCount) X(nvmlDeviceGetMigDeviceHandleByIndex) X(nvmlDeviceGetGpuInstanceId)  \
    X(nvmlDeviceGetComputeInstanceId) X(nvmlDeviceGetClockInfo) X(nvmlDeviceGetMaxClockInfo)                \
    X(nvmlDeviceGetUtilizationRates) X(nvmlDeviceGetPowerUsage) X(nvmlDeviceGetEnforcedPowerLimit)          \
    X(nvmlDeviceGetTemperature) X(nvmlDeviceGetMemoryInfo) X(nvmlDeviceGetCurrentClocksEventReasons)        \
    X(nvmlDeviceGetCurrentClocksThrottleReasons)                                                            \
    X(nvmlDeviceGetTotalEccErrors) X(nvmlDeviceGetRemappedRows) X(nvmlDeviceGetFieldValues)                 \
    X(nvmlDeviceGetComputeRunningProcesses_v3) X(nvmlDeviceGetGraphicsRunningProcesses_v3)                  \
    X(nvmlEventSetCreate) X(nvmlEventSetFree) X(nvmlDeviceRegisterEvents)                                   \
    X(nvmlDeviceGetSupportedEventTypes) X(nvmlEventSetWait_v2)

#define NUMBERS(X)                                                                                          \
    X(sm_clock) X(sm_clock_max) X(utilisation) X(utilisation_memory) X(power) X(power_limit)                \
    X(temperature) X(memory_total) X(memory_used) X(clock_reasons) X(ecc_volatile) X(ecc_aggregate)         \
    X(remap_correctable) X(remap_uncorrectable) X(remap_pending) X(remap_failed) X(recovery_action)         \
    X(mig_mode) X(event_types) X(process_count) X(processes_by_instance)

#define AS_ENUM(name) CALL_##name,
enum { CALLS(AS_ENUM) CALL_COUNT };
#undef AS_ENUM
#define AS_ENUM(name) NUMBER_##name,
enum { NUMBERS(AS_ENUM) NUMBER_COUNT };
#undef AS_ENUM
#define AS_TEXT(name) #name,
static const char *const call_names[] = {CALLS(AS_TEXT)};
static const char *const number_names[] = {NUMBERS(AS_TEXT)};

enum { GPUS = 16, MIGS = 8, PROCESSES = 600, EVENTS = 64, TEXT = 512, POLL_US = 2000 };

struct process {
    int graphics;
    nvmlProcessInfo_t told;
};

struct mig {
    char uuid[TEXT];
    unsigned int gpu_instance, compute_instance;
    unsigned long long total, used;
};

struct event {
    unsigned long long serial, type, data;
    unsigned int gpu_instance, compute_instance;
};

struct gpu {
    char uuid[TEXT], name[TEXT];
    unsigned int domain, bus, device;
    unsigned long long numbers[NUMBER_COUNT];
    char has[NUMBER_COUNT];
    int codes[CALL_COUNT];
    char hangs[CALL_COUNT];
    struct process processes[PROCESSES];
    unsigned int process_count;
    struct mig migs[MIGS];
    unsigned int mig_count;
    struct event events[EVENTS];
    unsigned int event_count;
};

struct state {
    char driver[TEXT], nvml[TEXT], module[TEXT];
    struct gpu common; /* its codes and hangs stand for every GPU and for calls without one */
    struct gpu gpus[GPUS];
    unsigned int gpu_count, claimed_count;
};

struct handle { /* what an nvmlDevice_t points at */
    int gpu, mig; /* mig is -1 for the GPU itself */
};

struct event_set {
    unsigned long long last;
    unsigned long long types[GPUS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct state state;
static struct stat seen;
static int users;
static unsigned long long calls[CALL_COUNT];
static struct handle handles[GPUS][MIGS + 1];

/* -- the state file ------------------------------------------------------------------------------------- */

static int named(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return i;
    fprintf(stderr, "fake_nvml: unknown word %s\n", name);
    abort();
}

static void text(char *into, const char *from) /* \xNN is one byte */
{
    size_t used = 0;
    while (*from && *from != '\n' && used < TEXT - 1) {
        unsigned int byte;
        if (from[0] == '\\' && sscanf(from, "\\x%2x", &byte) == 1) {
            into[used++] = (char)byte;
            from += 4;
        } else {
            into[used++] = *from++;
        }
    }
    into[used] = 0;
}

static void statement(struct gpu **at, char *line)
{
    char word[64], name[64];
    int used = 0;
    struct gpu *gpu = *at;
    if (sscanf(line, "%63s %n", word, &used) < 1)
        return;
    char *rest = line + used;
    if (!strcmp(word, "driver")) {
        text(state.driver, rest);
    } else if (!strcmp(word, "nvml")) {
        text(state.nvml, rest);
    } else if (!strcmp(word, "module")) {
        text(state.module, rest);
    } else if (!strcmp(word, "count")) {
        state.claimed_count = (unsigned int)strtoul(rest, NULL, 0);
    } else if (!strcmp(word, "gpu")) {
        *at = &state.gpus[state.gpu_count++];
    } else if (!strcmp(word, "uuid")) {
        text(gpu->uuid, rest);
    } else if (!strcmp(word, "name")) {
        text(gpu->name, rest);
    } else if (!strcmp(word, "pci")) {
        sscanf(rest, "%x:%x:%x", &gpu->domain, &gpu->bus, &gpu->device);
    } else if (!strcmp(word, "set")) {
        unsigned long long number;
        sscanf(rest, "%63s %llu", name, &number);
        int i = named(name, number_names, NUMBER_COUNT);
        gpu->numbers[i] = number;
        gpu->has[i] = 1;
    } else if (!strcmp(word, "code")) {
        int code;
        sscanf(rest, "%63s %d", name, &code);
        if (strcmp(name, "all"))
            gpu->codes[named(name, call_names, CALL_COUNT)] = code;
        else
            for (int i = 0; i < CALL_COUNT; i++)
                gpu->codes[i] = code;
    } else if (!strcmp(word, "hang")) {
        sscanf(rest, "%63s", name);
        gpu->hangs[named(name, call_names, CALL_COUNT)] = 1;
    } else if (!strcmp(word, "process") && gpu->process_count < PROCESSES) {
        struct process *p = &gpu->processes[gpu->process_count++];
        sscanf(rest, "%63s %u %llu %u %u", name, &p->told.pid, &p->told.usedGpuMemory,
               &p->told.gpuInstanceId, &p->told.computeInstanceId);
        p->graphics = !strcmp(name, "graphics");
    } else if (!strcmp(word, "mig") && gpu->mig_count < MIGS) {
        struct mig *m = &gpu->migs[gpu->mig_count++];
        sscanf(rest, "%511s %u %u %llu %llu", m->uuid, &m->gpu_instance, &m->compute_instance, &m->total, &m->used);
    } else if (!strcmp(word, "event") && gpu->event_count < EVENTS) {
        struct event *e = &gpu->events[gpu->event_count++];
        sscanf(rest, "%llu %llu %llu %u %u", &e->serial, &e->type, &e->data, &e->gpu_instance,
               &e->compute_instance);
    } else {
        named(word, NULL, 0);
    }
}

static void refresh(void)
{
    const char *path = getenv("FAKE_NVML_STATE");
    struct stat now;
    if (!path || stat(path, &now) || (now.st_ino == seen.st_ino && now.st_dev == seen.st_dev &&
                                      now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec &&
                                      now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_size == seen.st_size))
        return;
    FILE *file = fopen(path, "r");
    if (!file)
        return;
    seen = now;
    memset(&state, 0, sizeof(state));
    struct gpu *at = &state.common;
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0)
        statement(&at, line);
    free(line);
    fclose(file);
}

/* -- the way into and out of a call: on 0 the lock is held and the caller must leave() -------------------- */

static int leave(int code)
{
    pthread_mutex_unlock(&lock);
    return code;
}

static int enter(int call, const struct handle *handle)
{
    pthread_mutex_lock(&lock);
    calls[call]++;
    for (;;) {
        refresh();
        struct gpu *gpu = handle ? &state.gpus[handle->gpu] : &state.common;
        if (!gpu->hangs[call] && !state.common.hangs[call]) {
            int code = gpu->codes[call] ? gpu->codes[call] : state.common.codes[call];
            if (!code && !users && call != CALL_nvmlInitWithFlags)
                code = NVML_ERROR_UNINITIALIZED;
            if (!code && handle && handle->gpu >= (int)state.gpu_count)
                code = NVML_ERROR_GPU_IS_LOST;
            return code ? leave(code) : 0;
        }
        pthread_mutex_unlock(&lock);
        usleep(POLL_US);
        pthread_mutex_lock(&lock);
    }
}

#define ENTER(name, handle)                                                                                 \
    do {                                                                                                    \
        int entered = enter(CALL_##name, handle);                                                           \
        if (entered)                                                                                        \
            return entered;                                                                                 \
    } while (0)

static int answer(char *into, unsigned int size, const char *from) /* cut as a careless library cuts it */
{
    strncpy(into, from, size);
    return leave(0);
}

static int number(const struct handle *h, int which, unsigned int *into)
{
    struct gpu *gpu = &state.gpus[h->gpu];
    if (h->mig >= 0 || !gpu->has[which])
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *into = (unsigned int)gpu->numbers[which];
    return leave(0);
}

/* -- the calls ------------------------------------------------------------------------------------------- */

unsigned long long fake_nvml_calls(const char *name) { return calls[named(name, call_names, CALL_COUNT)]; }

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    ENTER(nvmlInitWithFlags, NULL);
    if (state.module[0] && strcmp(state.module, FAKE_NVML_VERSION))
        return leave(NVML_ERROR_LIB_RM_VERSION_MISMATCH);
    users++;
    return leave(0);
}

int nvmlShutdown(void)
{
    ENTER(nvmlShutdown, NULL);
    users--;
    return leave(0);
}

const char *nvmlErrorString(int code)
{
    (void)code;
    return "an error of the fake library";
}

int nvmlSystemGetDriverVersion(char *version, unsigned int size)
{
    ENTER(nvmlSystemGetDriverVersion, NULL);
    return answer(version, size, state.driver[0] ? state.driver : FAKE_NVML_VERSION);
}

int nvmlSystemGetNVMLVersion(char *version, unsigned int size)
{
    ENTER(nvmlSystemGetNVMLVersion, NULL);
    return answer(version, size, state.nvml[0] ? state.nvml : "13." FAKE_NVML_VERSION);
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    ENTER(nvmlDeviceGetCount_v2, NULL);
    *count = state.claimed_count ? state.claimed_count : state.gpu_count;
    return leave(0);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct handle **into)
{
    if (index >= GPUS)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct handle *h = &handles[index][0];
    h->gpu = (int)index;
    h->mig = -1;
    ENTER(nvmlDeviceGetHandleByIndex_v2, h);
    *into = h;
    return leave(0);
}

int nvmlDeviceGetUUID(struct handle *h, char *uuid, unsigned int size)
{
    ENTER(nvmlDeviceGetUUID, h);
    struct gpu *gpu = &state.gpus[h->gpu];
    return answer(uuid, size, h->mig < 0 ? gpu->uuid : gpu->migs[h->mig].uuid);
}

int nvmlDeviceGetName(struct handle *h, char *name, unsigned int size)
{
    ENTER(nvmlDeviceGetName, h);
    return answer(name, size, state.gpus[h->gpu].name);
}

int nvmlDeviceGetPciInfo_v3(struct handle *h, nvmlPciInfo_t *pci)
{
    ENTER(nvmlDeviceGetPciInfo_v3, h);
    struct gpu *gpu = &state.gpus[h->gpu];
    memset(pci, 0, sizeof(*pci));
    pci->domain = gpu->domain;
    pci->bus = gpu->bus;
    pci->device = gpu->device;
    snprintf(pci->busId, sizeof(pci->busId), "%08X:%02X:%02X.0", gpu->domain, gpu->bus, gpu->device);
    return leave(0);
}

int nvmlDeviceGetMigMode(struct handle *h, unsigned int *current, unsigned int *pending)
{
    ENTER(nvmlDeviceGetMigMode, h);
    *pending = 0;
    return number(h, NUMBER_mig_mode, current);
}

int nvmlDeviceGetMaxMigDeviceCount(struct handle *h, unsigned int *count)
{
    ENTER(nvmlDeviceGetMaxMigDeviceCount, h);
    *count = MIGS - 1;
    return leave(0);
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *h, unsigned int index, struct handle **into)
{
    ENTER(nvmlDeviceGetMigDeviceHandleByIndex, h);
    if (index >= state.gpus[h->gpu].mig_count)
        return leave(NVML_ERROR_NOT_FOUND);
    struct handle *found = &handles[h->gpu][index + 1];
    found->gpu = h->gpu;
    found->mig = (int)index;
    *into = found;
    return leave(0);
}

int nvmlDeviceGetGpuInstanceId(struct handle *h, unsigned int *id)
{
    ENTER(nvmlDeviceGetGpuInstanceId, h);
    if (h->mig < 0)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *id = state.gpus[h->gpu].migs[h->mig].gpu_instance;
    return leave(0);
}

int nvmlDeviceGetComputeInstanceId(struct handle *h, unsigned int *id)
{
    ENTER(nvmlDeviceGetComputeInstanceId, h);
    if (h->mig < 0)
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *id = state.gpus[h->gpu].migs[h->mig].compute_instance;
    return leave(0);
}

int nvmlDeviceGetClockInfo(struct handle *h, unsigned int type, unsigned int *mhz)
{
    ENTER(nvmlDeviceGetClockInfo, h);
    return type == NVML_CLOCK_SM ? number(h, NUMBER_sm_clock, mhz) : leave(NVML_ERROR_NOT_SUPPORTED);
}

int nvmlDeviceGetMaxClockInfo(struct handle *h, unsigned int type, unsigned int *mhz)
{
    ENTER(nvmlDeviceGetMaxClockInfo, h);
    return type == NVML_CLOCK_SM ? number(h, NUMBER_sm_clock_max, mhz) : leave(NVML_ERROR_NOT_SUPPORTED);
}

int nvmlDeviceGetUtilizationRates(struct handle *h, nvmlUtilization_t *rates)
{
    ENTER(nvmlDeviceGetUtilizationRates, h);
    rates->memory = (unsigned int)state.gpus[h->gpu].numbers[NUMBER_utilisation_memory];
    return number(h, NUMBER_utilisation, &rates->gpu);
}

int nvmlDeviceGetPowerUsage(struct handle *h, unsigned int *milliwatts)
{
    ENTER(nvmlDeviceGetPowerUsage, h);
    return number(h, NUMBER_power, milliwatts);
}

int nvmlDeviceGetEnforcedPowerLimit(struct handle *h, unsigned int *milliwatts)
{
    ENTER(nvmlDeviceGetEnforcedPowerLimit, h);
    return number(h, NUMBER_power_limit, milliwatts);
}

int nvmlDeviceGetTemperature(struct handle *h, unsigned int sensor, unsigned int *celsius)
{
    (void)sensor;
    ENTER(nvmlDeviceGetTemperature, h);
    return number(h, NUMBER_temperature, celsius);
}

int nvmlDeviceGetMemoryInfo(struct handle *h, nvmlMemory_t *memory)
{
    ENTER(nvmlDeviceGetMemoryInfo, h);
    struct gpu *gpu = &state.gpus[h->gpu];
    if (h->mig < 0 && !gpu->has[NUMBER_memory_total])
        return leave(NVML_ERROR_NOT_SUPPORTED);
    memory->total = h->mig < 0 ? gpu->numbers[NUMBER_memory_total] : gpu->migs[h->mig].total;
    memory->used = h->mig < 0 ? gpu->numbers[NUMBER_memory_used] : gpu->migs[h->mig].used;
    memory->free = memory->total - memory->used;
    return leave(0);
}

static int reasons_of(struct handle *h, unsigned long long *reasons)
{
    if (!state.gpus[h->gpu].has[NUMBER_clock_reasons])
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *reasons = state.gpus[h->gpu].numbers[NUMBER_clock_reasons];
    return leave(0);
}

int nvmlDeviceGetCurrentClocksEventReasons(struct handle *h, unsigned long long *reasons)
{
    ENTER(nvmlDeviceGetCurrentClocksEventReasons, h);
    return reasons_of(h, reasons);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(struct handle *h, unsigned long long *reasons)
{
    ENTER(nvmlDeviceGetCurrentClocksThrottleReasons, h);
    return reasons_of(h, reasons);
}

int nvmlDeviceGetTotalEccErrors(struct handle *h, unsigned int error, unsigned int counter, unsigned long long *count)
{
    ENTER(nvmlDeviceGetTotalEccErrors, h);
    int which = counter == NVML_VOLATILE_ECC ? NUMBER_ecc_volatile : NUMBER_ecc_aggregate;
    if (error != NVML_MEMORY_ERROR_TYPE_UNCORRECTED || !state.gpus[h->gpu].has[which])
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *count = state.gpus[h->gpu].numbers[which];
    return leave(0);
}

int nvmlDeviceGetRemappedRows(struct handle *h, unsigned int *correctable, unsigned int *uncorrectable,
                              unsigned int *pending, unsigned int *failed)
{
    ENTER(nvmlDeviceGetRemappedRows, h);
    struct gpu *gpu = &state.gpus[h->gpu];
    *correctable = (unsigned int)gpu->numbers[NUMBER_remap_correctable];
    *uncorrectable = (unsigned int)gpu->numbers[NUMBER_remap_uncorrectable];
    *pending = (unsigned int)gpu->numbers[NUMBER_remap_pending];
    return number(h, NUMBER_remap_failed, failed);
}

int nvmlDeviceGetFieldValues(struct handle *h, int count, nvmlFieldValue_t *values)
{
    ENTER(nvmlDeviceGetFieldValues, h);
    struct gpu *gpu = &state.gpus[h->gpu];
    for (int i = 0; i < count; i++) {
        int known = values[i].fieldId == NVML_FI_DEV_GET_GPU_RECOVERY_ACTION && gpu->has[NUMBER_recovery_action];
        values[i].nvmlReturn = known ? 0 : NVML_ERROR_NOT_SUPPORTED;
        values[i].valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        values[i].value.uiVal = (unsigned int)gpu->numbers[NUMBER_recovery_action];
    }
    return leave(0);
}

static int processes(struct handle *h, int graphics, unsigned int *count, nvmlProcessInfo_t *infos)
{
    struct gpu *gpu = &state.gpus[h->gpu];
    unsigned int found = 0, room = *count;
    if (h->mig < 0 && gpu->has[NUMBER_processes_by_instance])
        return leave(NVML_ERROR_NO_PERMISSION);
    for (unsigned int i = 0; i < gpu->process_count; i++) {
        if (gpu->processes[i].graphics != graphics)
            continue;
        if (h->mig >= 0 && gpu->processes[i].told.gpuInstanceId != gpu->migs[h->mig].gpu_instance)
            continue;
        if (infos && found < room)
            infos[found] = gpu->processes[i].told;
        found++;
    }
    *count = gpu->has[NUMBER_process_count] ? (unsigned int)gpu->numbers[NUMBER_process_count] : found;
    return leave(found > room ? NVML_ERROR_INSUFFICIENT_SIZE : 0);
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *h, unsigned int *count, nvmlProcessInfo_t *infos)
{
    ENTER(nvmlDeviceGetComputeRunningProcesses_v3, h);
    return processes(h, 0, count, infos);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct handle *h, unsigned int *count, nvmlProcessInfo_t *infos)
{
    ENTER(nvmlDeviceGetGraphicsRunningProcesses_v3, h);
    return processes(h, 1, count, infos);
}

static struct event *next_event(struct event_set *set, int *gpu)
{
    struct event *found = NULL;
    for (unsigned int g = 0; g < state.gpu_count; g++)
        for (unsigned int i = 0; i < state.gpus[g].event_count; i++) {
            struct event *e = &state.gpus[g].events[i];
            if (e->serial > set->last && (e->type & set->types[g]) && (!found || e->serial < found->serial)) {
                found = e;
                *gpu = (int)g;
            }
        }
    return found;
}

int nvmlEventSetCreate(struct event_set **set)
{
    ENTER(nvmlEventSetCreate, NULL);
    *set = calloc(1, sizeof(**set));
    for (unsigned int g = 0; g < state.gpu_count; g++) /* only what happens from now on is told */
        for (unsigned int i = 0; i < state.gpus[g].event_count; i++)
            if (state.gpus[g].events[i].serial > (*set)->last)
                (*set)->last = state.gpus[g].events[i].serial;
    return leave(0);
}

int nvmlEventSetFree(struct event_set *set)
{
    ENTER(nvmlEventSetFree, NULL);
    free(set);
    return leave(0);
}

int nvmlDeviceGetSupportedEventTypes(struct handle *h, unsigned long long *types)
{
    ENTER(nvmlDeviceGetSupportedEventTypes, h);
    if (!state.gpus[h->gpu].has[NUMBER_event_types])
        return leave(NVML_ERROR_NOT_SUPPORTED);
    *types = state.gpus[h->gpu].numbers[NUMBER_event_types];
    return leave(0);
}

int nvmlDeviceRegisterEvents(struct handle *h, unsigned long long types, struct event_set *set)
{
    ENTER(nvmlDeviceRegisterEvents, h);
    set->types[h->gpu] |= types;
    return leave(0);
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static int watch_state(void) /* a driver's wait sleeps: so does this one, until the state file is replaced */
{
    char folder[4096];
    snprintf(folder, sizeof(folder), "%s", getenv("FAKE_NVML_STATE"));
    int watch = inotify_init1(IN_CLOEXEC);
    inotify_add_watch(watch, dirname(folder), IN_MOVED_TO | IN_CLOSE_WRITE);
    return watch;
}

int nvmlEventSetWait_v2(struct event_set *set, nvmlEventData_t *data, unsigned int timeout_ms)
{
    char changes[4096];
    long long until = now_ms() + timeout_ms;
    ENTER(nvmlEventSetWait_v2, NULL);
    int watch = watch_state();
    for (;;) {
        int gpu;
        refresh();
        struct event *e = next_event(set, &gpu);
        if (e) {
            set->last = e->serial;
            memset(data, 0, sizeof(*data));
            handles[gpu][0].gpu = gpu;
            handles[gpu][0].mig = -1;
            data->device = &handles[gpu][0];
            data->eventType = e->type;
            data->eventData = e->data;
            data->gpuInstanceId = e->gpu_instance;
            data->computeInstanceId = e->compute_instance;
            close(watch);
            return leave(0);
        }
        long long left = until - now_ms();
        if (left <= 0) {
            close(watch);
            return leave(NVML_ERROR_TIMEOUT);
        }
        pthread_mutex_unlock(&lock);
        struct pollfd changed = {.fd = watch, .events = POLLIN};
        if (poll(&changed, 1, (int)left) > 0 && read(watch, changes, sizeof(changes)) < 0)
            abort();
        pthread_mutex_lock(&lock);
    }
}
