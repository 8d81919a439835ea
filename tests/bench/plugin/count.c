// QEMU plugin that counts instructions and world switches of an SVM hypervisor, between marks that a workload sets.
//
// Instructions are counted for three parties: the hypervisor (everything outside guests), the root, and children.
// The root's VMCB is the first one that a processor runs; with root=no (another hypervisor) all guests are children.
// World switches are counted by the guest that left and by what its VMCB says about the exit, read through the
// hypervisor's map of physical memory at physmap=.
//
// A mark is `nopl MARK(%rax)` with the number of the region in EAX; MARK ends with 01 for begin and 02 for end.
// The end of a region writes one line of JSON to the file out=. With text=FROM-TO (the hypervisor's code) it also
// has the instructions of each piece of that code, by the address at which the piece starts. With count=no only the
// processor time is taken that QEMU uses on the host, and the emulation is as fast as without a plugin.
//
// Instructions are counted by translation block, which is exact but for blocks that a fault cuts short.
#include "qemu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BEGIN = 0x51570001, END = 0x51570002 };
enum { HYPERVISOR, ROOT, CHILD, PARTIES };
enum { REGIONS = 32, REASONS = 1024, SPOTS = 16384, RETURNS = 16 };
static const char *const NAMES[PARTIES] = {"hypervisor", "root", "child"};

// Offsets in the VMCB (APM 2 appendix B).
enum { EXIT_CODE = 0x70, EXIT_INFO_1 = 0x78, CONTROL_READ = 0x88 };
// Exit codes whose reason has a part of its own (APM 2 appendix C).
enum { EXIT_IO = 0x7b, EXIT_MSR = 0x7c, EXIT_VMMCALL = 0x81, EXIT_NESTED_FAULT = 0x400 };

// One processor's share; `total` is what the translated code adds to.
struct vcpu {
    uint64_t total, last;
    uint64_t spent[PARTIES];
    uint64_t root_vmcb, vmcb;
    int party;
    GByteArray *buffer;
};

struct reason {
    int party;
    uint64_t code, detail, count, begin[REGIONS];
};

static struct qemu_plugin_scoreboard *vcpus, *spot_counts;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct reason reasons[REASONS];
static int reason_count;
static uint64_t begun[REGIONS][PARTIES], cpu_begun[REGIONS], wall_begun[REGIONS];
// Code behind each VMRUN, by host address: a guest may have code at the same virtual one.
static const char *returns[RETURNS];
static int return_count;
static uint64_t spots[SPOTS], spots_begun[SPOTS];
static int spot_count;
static struct qemu_plugin_register *rax, *rcx;
static uint64_t physmap = 0xffff800000000000, text_from, text_to;
static bool has_root = true, counting = true;
static FILE *out;

static struct vcpu *vcpu(unsigned index) { return qemu_plugin_scoreboard_find(vcpus, index); }

static void find_registers(void) {
    GArray *list = qemu_plugin_get_registers();
    const qemu_plugin_reg_descriptor *all = (const void *)list->data;
    for (unsigned i = 0; i < list->len; i++) {
        if (!strcmp(all[i].name, "rax")) rax = all[i].handle;
        if (!strcmp(all[i].name, "rcx")) rcx = all[i].handle;
    }
}

static uint64_t read_register(struct vcpu *cpu, struct qemu_plugin_register **which) {
    if (!*which) find_registers();
    if (!cpu->buffer) cpu->buffer = g_byte_array_new();
    g_byte_array_set_size(cpu->buffer, 0);
    uint64_t value = 0;
    int length = qemu_plugin_read_register(*which, cpu->buffer);
    if (length > 0) memcpy(&value, cpu->buffer->data, length > 8 ? 8 : length);
    return value;
}

// Books what was executed since the last change of party.
static void settle(struct vcpu *cpu) {
    cpu->spent[cpu->party] += cpu->total - cpu->last;
    cpu->last = cpu->total;
}

static void on_vmrun(unsigned index, void *data) {
    struct vcpu *cpu = vcpu(index);
    cpu->vmcb = read_register(cpu, &rax);
    if (has_root && !cpu->root_vmcb) cpu->root_vmcb = cpu->vmcb;
    settle(cpu);
    cpu->party = cpu->vmcb == cpu->root_vmcb ? ROOT : CHILD;
}

static void count_exit(int party, uint64_t code, uint64_t detail) {
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < reason_count &&
           !(reasons[i].party == party && reasons[i].code == code && reasons[i].detail == detail)) i++;
    if (i == reason_count && reason_count < REASONS) {
        reasons[i] = (struct reason){.party = party, .code = code, .detail = detail};
        reason_count++;
    }
    if (i < REASONS) reasons[i].count++;
    pthread_mutex_unlock(&lock);
}

static void on_exit_to_host(unsigned index, void *data) {
    struct vcpu *cpu = vcpu(index);
    if (cpu->party == HYPERVISOR) return;
    settle(cpu);
    int party = cpu->party;
    cpu->party = HYPERVISOR;
    // RCX is still the guest's: the number of an MSR or of a hypercall.
    uint64_t guest_rcx = read_register(cpu, &rcx), control[(CONTROL_READ - EXIT_CODE) / 8] = {~0ull};
    if (qemu_plugin_read_memory_vaddr(physmap + cpu->vmcb + EXIT_CODE, cpu->buffer, sizeof control))
        memcpy(control, cpu->buffer->data, sizeof control);
    uint64_t code = control[0], info = control[1], detail = 0;
    switch (code) {
    case EXIT_MSR: detail = (guest_rcx & 0xffffffff) | (info & 1) << 32; break;
    case EXIT_IO: detail = info >> 16 & 0xffff; break;
    case EXIT_VMMCALL: detail = guest_rcx & 0xffff; break;
    case EXIT_NESTED_FAULT: detail = info & 0x1f; break;
    }
    count_exit(party, code, detail);
}

// What each party has executed until now, over all processors.
static void sum(uint64_t spent[PARTIES]) {
    memset(spent, 0, PARTIES * sizeof *spent);
    for (int i = 0; i < qemu_plugin_num_vcpus(); i++) {
        struct vcpu *cpu = vcpu(i);
        for (int party = 0; party < PARTIES; party++) spent[party] += cpu->spent[party];
        spent[cpu->party] += cpu->total - cpu->last;
    }
}

// Nanoseconds of a clock of the host: MONOTONIC, or PROCESS_CPUTIME, the processor time of all of QEMU, which unlike
// the time that passes does not depend on what else the host does.
static uint64_t host_time(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t spot_sum(int spot) {
    return qemu_plugin_u64_sum((qemu_plugin_u64){spot_counts, spot * sizeof(uint64_t)});
}

static void begin(unsigned region) {
    sum(begun[region]);
    cpu_begun[region] = host_time(CLOCK_PROCESS_CPUTIME_ID);
    wall_begun[region] = host_time(CLOCK_MONOTONIC);
    for (int i = 0; i < reason_count; i++) reasons[i].begin[region] = reasons[i].count;
    for (int i = 0; i < spot_count; i++) spots_begun[i] = spot_sum(i);
}

static void end(unsigned region) {
    uint64_t cpu = host_time(CLOCK_PROCESS_CPUTIME_ID) - cpu_begun[region];
    uint64_t wall = host_time(CLOCK_MONOTONIC) - wall_begun[region], now[PARTIES];
    sum(now);
    fprintf(out, "{\"region\":%u,\"wall_ns\":%lu,\"cpu_ns\":%lu,\"instructions\":{", region, wall, cpu);
    for (int party = 0; party < PARTIES; party++)
        fprintf(out, "%s\"%s\":%lu", party ? "," : "", NAMES[party], now[party] - begun[region][party]);
    fprintf(out, "},\"switches\":[");
    const char *comma = "";
    for (int i = 0; i < reason_count; i++) {
        const struct reason *reason = &reasons[i];
        uint64_t count = reason->count - reason->begin[region];
        if (!count) continue;
        fprintf(out, "%s{\"party\":\"%s\",\"code\":%lu,\"detail\":%lu,\"count\":%lu}", comma,
                NAMES[reason->party], reason->code, reason->detail, count);
        comma = ",";
    }
    fprintf(out, "],\"spots\":[");
    comma = "";
    for (int i = 0; i < spot_count; i++) {
        uint64_t count = spot_sum(i) - spots_begun[i];
        if (!count) continue;
        fprintf(out, "%s[%lu,%lu]", comma, spots[i], count);
        comma = ",";
    }
    fprintf(out, "]}\n");
    fflush(out);
}

static void on_mark(unsigned index, void *data) {
    unsigned region = (unsigned)read_register(vcpu(index), &rax) % REGIONS;
    pthread_mutex_lock(&lock);
    if ((uintptr_t)data == BEGIN) begin(region);
    else end(region);
    pthread_mutex_unlock(&lock);
}

static bool is_return(const char *address) {
    for (int i = 0; i < return_count; i++) if (returns[i] == address) return true;
    return false;
}

static void add_spot(struct qemu_plugin_tb *block, size_t instructions) {
    uint64_t address = qemu_plugin_tb_vaddr(block);
    if (address < text_from || address >= text_to) return;
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < spot_count && spots[i] != address) i++;
    if (i == spot_count && spot_count < SPOTS) spots[spot_count++] = address;
    pthread_mutex_unlock(&lock);
    if (i == SPOTS) return;
    qemu_plugin_u64 counter = {spot_counts, i * sizeof(uint64_t)};
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, INLINE_ADD, counter, instructions);
}

static void instrument(struct qemu_plugin_insn *instruction) {
    uint8_t bytes[16];
    size_t length = qemu_plugin_insn_size(instruction);
    if (length > sizeof bytes) return;
    qemu_plugin_insn_data(instruction, bytes, length);
    if (counting && length >= 3 && !memcmp(bytes + length - 3, "\x0f\x01\xd8", 3)) {
        const char *address = qemu_plugin_insn_haddr(instruction);
        pthread_mutex_lock(&lock);
        if (address && !is_return(address + length) && return_count < RETURNS)
            returns[return_count++] = address + length;
        pthread_mutex_unlock(&lock);
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_vmrun, READS_REGS, NULL);
    }
    if (length == 7 && !memcmp(bytes, "\x0f\x1f\x80", 3)) {
        uint32_t mark;
        memcpy(&mark, bytes + 3, sizeof mark);
        if (mark == BEGIN || mark == END)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, READS_REGS, (void *)(uintptr_t)mark);
    }
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < count; i++) instrument(qemu_plugin_tb_get_insn(block, i));
    if (!counting) return;
    // The order matters: what follows an exit is the hypervisor's already, so the block is counted after it.
    if (is_return(qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(block, 0))))
        qemu_plugin_register_vcpu_tb_exec_cb(block, on_exit_to_host, READS_REGS, NULL);
    qemu_plugin_u64 total = {vcpus, offsetof(struct vcpu, total)};
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, INLINE_ADD, total, count);
    add_spot(block, count);
}

EXPORT int qemu_plugin_version = 4;

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value++) return -1;
        if (!strncmp(argv[i], "out=", 4)) out = fopen(value, "w");
        else if (!strncmp(argv[i], "physmap=", 8)) physmap = strtoull(value, NULL, 0);
        else if (!strncmp(argv[i], "count=", 6)) counting = strcmp(value, "no");
        else if (!strncmp(argv[i], "root=", 5)) has_root = strcmp(value, "no");
        else if (!strncmp(argv[i], "text=", 5)) {
            char *dash;
            text_from = strtoull(value, &dash, 0);
            text_to = *dash == '-' ? strtoull(dash + 1, NULL, 0) : 0;
        } else return -1;
    }
    if (!out) return -1;
    vcpus = qemu_plugin_scoreboard_new(sizeof(struct vcpu));
    spot_counts = qemu_plugin_scoreboard_new(SPOTS * sizeof(uint64_t));
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
