// Options, the order of the set-up, and the loop. cc -std=c99 -D_GNU_SOURCE -pthread *.c -o vmm
#include "vmm.h"
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

// The first end counts, and takes the other vCPUs out of the guest.
enum next end_vm(struct vmm *vmm, int status, const char *format, ...)
{
    va_list arguments;
    pthread_mutex_lock(&vmm->end);
    if (!vmm->is_over) {
        va_start(arguments, format);
        vsnprintf(vmm->text, sizeof vmm->text, format, arguments);
        va_end(arguments);
        vmm->status = status;
        vmm->is_over = true;
        for (unsigned i = 0; i < vmm->options->vcpus; i++) {
            struct vcpu *vcpu = &vmm->vcpus[i];
            if (vcpu->run)
                vcpu->run->immediate_exit = 1;
            if (vcpu->in_thread && !pthread_equal(vcpu->thread, pthread_self()))
                pthread_kill(vcpu->thread, SIGUSR1);
        }
    }
    pthread_mutex_unlock(&vmm->end);
    return OVER;
}

bool failed(struct vmm *vmm, const char *what)
{
    end_vm(vmm, NOT_RUN, "%s: %s", what, strerror(errno));
    return false;
}

static void nothing(int signal) { (void)signal; }

static int asked(const struct vmm *vmm, int cap) { return ioctl(vmm->fd, KVM_CHECK_EXTENSION, (unsigned long)cap); }

static bool enable(struct vmm *vmm, uint32_t cap, uint64_t argument)
{
    struct kvm_enable_cap enable = {.cap = cap, .args = {argument}};
    return !ioctl(vmm->fd, KVM_ENABLE_CAP, &enable) || failed(vmm, "KVM_ENABLE_CAP");
}

// Each capability is asked for before it is enabled, and only what is wanted of it.
static bool enable_capabilities(struct vmm *vmm)
{
    const int hypercalls = asked(vmm, X_CAP_EXIT_HYPERCALL);
    vmm->has_event_data = asked(vmm, X_CAP_SYSTEM_EVENT_DATA) > 0;
    if (wrong == ENABLES_UNASKED) {
        struct kvm_enable_cap enable = {.cap = X_CAP_TRIPLE_FAULT_EVENT, .args = {1}};
        vmm->has_triple_fault = !ioctl(vmm->fd, KVM_ENABLE_CAP, &enable);
    } else if (wrong != DOES_NOT_ENABLE_218) {
        vmm->has_triple_fault = asked(vmm, X_CAP_TRIPLE_FAULT_EVENT) > 0;
        if (vmm->has_triple_fault && !enable(vmm, X_CAP_TRIPLE_FAULT_EVENT, 1))
            return false;
    }
    if (hypercalls <= 0 || !(hypercalls & 1 << X_HC_MAP_GPA_RANGE))
        return true;
    return enable(vmm, X_CAP_EXIT_HYPERCALL,
                  wrong == ENABLES_ALL_HYPERCALLS ? (uint64_t)hypercalls : 1 << X_HC_MAP_GPA_RANGE);
}

// Real mode, with the code at GUEST_AT.
static bool set_registers(struct vcpu *vcpu)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rflags = 2};
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
        return failed(vcpu->vmm, "KVM_GET_SREGS");
    sregs.cs.base = GUEST_AT, sregs.cs.selector = GUEST_AT >> 4;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) || ioctl(vcpu->fd, KVM_SET_REGS, &regs))
        return failed(vcpu->vmm, "registers");
    return true;
}

static bool create_vcpus(struct vmm *vmm)
{
    const int run_bytes = ioctl(vmm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
    if (run_bytes < 2 * PAGE)
        return failed(vmm, "KVM_GET_VCPU_MMAP_SIZE");
    vmm->run_bytes = (size_t)run_bytes;
    for (unsigned i = 0; i < vmm->options->vcpus; i++) {
        struct vcpu *vcpu = &vmm->vcpus[i];
        vcpu->vmm = vmm, vcpu->id = i;
        vcpu->fd = ioctl(vmm->fd, KVM_CREATE_VCPU, (unsigned long)i);
        if (vcpu->fd < 0)
            return failed(vmm, "KVM_CREATE_VCPU");
        void *run = mmap(NULL, vmm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
        if (run == MAP_FAILED)
            return failed(vmm, "the run area");
        vcpu->run = run;
        if (!set_registers(vcpu))
            return false;
    }
    return true;
}

// Writes to port 0x80 so many times, then halts: mov ecx, N; out 0x80, al; dec ecx; jnz; hlt.
static unsigned char guest[] = {0x66, 0xb9, 0, 0, 0, 0, 0xe6, 0x80, 0x66, 0x49, 0x75, 0xfa, 0xf4};

static bool create(struct vmm *vmm, const struct options *options, const struct piece *pieces, unsigned npieces)
{
    memset(vmm, 0, sizeof *vmm);
    vmm->options = options;
    pthread_mutex_init(&vmm->memory, NULL);
    pthread_mutex_init(&vmm->end, NULL);
    vmm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vmm->kvm < 0)
        return failed(vmm, "/dev/kvm");
    if (ioctl(vmm->kvm, KVM_GET_API_VERSION, 0UL) != KVM_API_VERSION)
        return end_vm(vmm, NOT_RUN, "/dev/kvm speaks another API"), false;
    const int types = ioctl(vmm->kvm, KVM_CHECK_EXTENSION, (unsigned long)X_CAP_VM_TYPES);
    // Before the types were there, an SEV-ES guest was made of a VM of the default type.
    vmm->is_old_sev_es = options->type == X_VM_SEV_ES && (types <= 0 || !(types & 1 << X_VM_SEV_ES));
    vmm->fd = ioctl(vmm->kvm, KVM_CREATE_VM, vmm->is_old_sev_es ? 0UL : options->type);
    if (vmm->fd < 0)
        return failed(vmm, "KVM_CREATE_VM");
    if (!enable_capabilities(vmm))
        return false;
    if (options->irqchip && ioctl(vmm->fd, KVM_CREATE_IRQCHIP, 0UL))
        return failed(vmm, "KVM_CREATE_IRQCHIP");
    if (!launch_begin(vmm) || (wrong != ENABLES_CERTIFICATES_LATE && !launch_req_certs(vmm)))
        return false;
    for (unsigned i = 0; i < npieces; i++) {
        vmm->pieces[i] = pieces[i];
        vmm->pieces[i].slot = i;
        vmm->npieces++;
        if (!memory_add(vmm, &vmm->pieces[i]))
            return false;
    }
    char *image = memory_at(vmm, GUEST_AT);
    if (!image)
        return end_vm(vmm, NOT_RUN, "no memory for the guest"), false;
    for (int i = 0; i < 4; i++)
        guest[2 + i] = (unsigned char)(options->exits >> 8 * i);
    memcpy(image, guest, sizeof guest);
    if (!create_vcpus(vmm))
        return false;
    if (wrong == ENABLES_CERTIFICATES_LATE && !launch_req_certs(vmm)) {
        // It does not look at what came of it.
        vmm->is_over = false;
        vmm->status = OK;
        for (unsigned i = 0; i < options->vcpus; i++)
            vmm->vcpus[i].run->immediate_exit = 0;
    }
    return launch_load(vmm, sizeof guest) && launch_finish(vmm);
}

// One exit of a vCPU. False when it is not to be entered again.
static bool turn(struct vcpu *vcpu)
{
    switch (vcpu_service(vcpu, vcpu_enter(vcpu))) {
    case AGAIN:
        return !vcpu->vmm->is_over;
    case COMMIT: {
        const enum next next = vcpu_drain(vcpu);
        certs_unlock(vcpu);
        return next != OVER && !vcpu->vmm->is_over;
    }
    default:
        return false;
    }
}

static void *run_thread(void *argument)
{
    struct vcpu *vcpu = argument;
    while (!vcpu->vmm->is_over && turn(vcpu))
        ;
    return NULL;
}

static void run_in_threads(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->options->vcpus; i++) {
        struct vcpu *vcpu = &vmm->vcpus[i];
        pthread_mutex_lock(&vmm->end);
        vcpu->in_thread = !pthread_create(&vcpu->thread, NULL, run_thread, vcpu);
        pthread_mutex_unlock(&vmm->end);
        if (!vcpu->in_thread)
            end_vm(vmm, NOT_RUN, "no thread for vCPU %u", i);
    }
    for (unsigned i = 0; i < vmm->options->vcpus; i++)
        if (vmm->vcpus[i].in_thread)
            pthread_join(vmm->vcpus[i].thread, NULL);
}

static void run_in_turn(struct vmm *vmm)
{
    const struct options *options = vmm->options;
    struct kvm_vcpu_events events;
    unsigned exits = 0, running = options->vcpus;
    while (running && !vmm->is_over)
        for (unsigned i = options->vcpus; i-- > 0 && !vmm->is_over;) {
            struct vcpu *vcpu = &vmm->vcpus[i];
            if (vcpu->is_done)
                continue;
            if (!turn(vcpu)) {
                vcpu->is_done = true;
                running--;
            } else if (++exits == options->save_after && options->task == TASK_SAVE_AFTER) {
                events_save(vcpu, &events);
            }
        }
}

static bool prepare(struct vmm *first, struct vmm *second, const struct piece *pieces, unsigned npieces)
{
    struct kvm_vcpu_events events = {.flags = 0}, again;
    struct vcpu *vcpu = &first->vcpus[0];
    switch (first->options->task) {
    case TASK_SAVE_TWICE:
        return events_save(vcpu, &events) && events_save(vcpu, &again);
    case TASK_GO_BACK:
        return events_save(vcpu, &events) && events_restore(vcpu, events);
    case TASK_MIGRATE:
        return events_save(vcpu, &events) && create(second, first->options, pieces, npieces) &&
               events_restore(&second->vcpus[0], events);
    default:
        return true;
    }
}

static bool read_piece(const char *text, struct piece *piece)
{
    char *end;
    piece->gpa = strtoull(text, &end, 0);
    if (*end != ':' || end == text)
        return false;
    text = end + 1;
    piece->bytes = strtoull(text, &end, 0);
    piece->has_private = *end == '\0';
    if (end == text || (*end && strcmp(end, ":shared")))
        return false;
    return piece->bytes && piece->gpa % PAGE == 0 && piece->bytes % PAGE == 0 &&
           piece->bytes <= UINT64_MAX - piece->gpa;
}

static bool read_type(const char *text, struct options *options)
{
    static const char *const names[] = {"default", "sw-protected", NULL, "sev-es", "snp"};
    for (options->type = 0; options->type < 5; options->type++)
        if (names[options->type] && !strcmp(names[options->type], text))
            return true;
    return false;
}

static bool read_task(const char *text, struct options *options)
{
    static const char *const names[] = {"run", "save-after:", "save-twice", "go-back", "migrate"};
    if (!strncmp(text, names[TASK_SAVE_AFTER], strlen(names[TASK_SAVE_AFTER]))) {
        options->task = TASK_SAVE_AFTER;
        options->save_after = (unsigned)atoi(text + strlen(names[TASK_SAVE_AFTER]));
        return options->save_after > 0;
    }
    for (unsigned task = 0; task < 5; task++)
        if (!strcmp(names[task], text)) {
            options->task = (enum task)task;
            return task != TASK_SAVE_AFTER;
        }
    return false;
}

static int usage(const char *what)
{
    fprintf(stderr,
            "vmm: %s\n"
            "usage: vmm [--type default|sw-protected|sev-es|snp] [--memory GPA:BYTES[:shared]]... [--vcpus N]\n"
            "           [--in-turn] [--irqchip] [--convert-faults] [--ignore-events] [--certificates FILE]\n"
            "           [--task run|save-after:N|save-twice|go-back|migrate] [--exits N] [--wrong NAME] [--list-wrong]\n",
            what);
    return NOT_RUN;
}

enum { TYPE = 1, MEMORY, N_VCPUS, IN_TURN, IRQCHIP, CONVERT, IGNORE, CERTIFICATES, TASK, EXITS, WRONG, LIST };

static const struct option long_options[] = {
    {"type", 1, 0, TYPE},           {"memory", 1, 0, MEMORY},        {"vcpus", 1, 0, N_VCPUS},
    {"in-turn", 0, 0, IN_TURN},     {"irqchip", 0, 0, IRQCHIP},      {"convert-faults", 0, 0, CONVERT},
    {"ignore-events", 0, 0, IGNORE}, {"certificates", 1, 0, CERTIFICATES}, {"task", 1, 0, TASK},
    {"exits", 1, 0, EXITS},         {"wrong", 1, 0, WRONG},          {"list-wrong", 0, 0, LIST},
    {0, 0, 0, 0}};

int main(int argc, char **argv)
{
    struct options options = {.vcpus = 1, .exits = 1000};
    struct piece pieces[PIECES] = {{.gpa = 0, .bytes = 16 << 20, .has_private = true}};
    unsigned npieces = 0;
    static struct vmm first, second;
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        bool good = true;
        switch (c) {
        case TYPE: good = read_type(optarg, &options); break;
        case MEMORY: good = npieces < PIECES && read_piece(optarg, &pieces[npieces++]); break;
        case N_VCPUS: good = (options.vcpus = (unsigned)atoi(optarg)) - 1 < VCPUS; break;
        case IN_TURN: options.in_turn = true; break;
        case IRQCHIP: options.irqchip = true; break;
        case CONVERT: options.convert_faults = true; break;
        case IGNORE: options.ignore_events = true; break;
        case CERTIFICATES: options.certificates = optarg; break;
        case TASK: good = read_task(optarg, &options); break;
        case EXITS: good = (options.exits = (unsigned)strtoul(optarg, NULL, 0)) > 0; break;
        case WRONG: good = wrong_named(optarg); break;
        case LIST: wrong_list(stdout); return OK;
        default: return usage("what is that?");
        }
        if (!good)
            return usage(optarg);
    }
    if (optind < argc)
        return usage(argv[optind]);
    struct sigaction action = {.sa_handler = nothing};
    sigaction(SIGUSR1, &action, NULL);
    struct vmm *runs = &first;
    if (create(&first, &options, pieces, npieces ? npieces : 1) && prepare(&first, &second, pieces, npieces ? npieces : 1)) {
        runs = options.task == TASK_MIGRATE ? &second : &first;
        // A vCPU that waits in the kernel would keep the others waiting.
        if ((options.in_turn && !options.irqchip) || options.vcpus == 1)
            run_in_turn(runs);
        else
            run_in_threads(runs);
    } else if (second.is_over) {
        runs = &second;
    }
    fflush(stdout);
    fprintf(stderr, "vmm: %s (exit status %d)\n", runs->is_over ? runs->text : "the guest halted", runs->status);
    return runs->status;
}
