// Feeds recorded exits through libexeunt and checks what it makes of them. Needs no /dev/kvm.
// cc replay.c -o replay $(pkg-config --cflags --libs exeunt) && ./replay vectors/exits.jsonl
#include <errno.h>
#include <exeunt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REASON = 8, UNION = 32, UNION_BYTES = 256, RET = UNION + 56, MEMORY = 0x100000000 >> 12 };

static _Alignas(4096) unsigned char run[4096];
static unsigned attribute_calls, private_calls, discards, private_discards, dumps, kicks;

static int set_attributes(void *ctx, uint64_t gpa, uint64_t size, bool to_private)
{
    attribute_calls++;
    private_calls += to_private;
    return ctx && gpa % 4096 == 0 && size ? 0 : -EINVAL;
}

static int discard(void *ctx, uint64_t gpa, uint64_t size, bool private_memory)
{
    discards++;
    private_discards += private_memory;
    return ctx && gpa % 4096 == 0 && size ? 0 : -EINVAL;
}

static void dump(void *ctx) { dumps += ctx != NULL; }
static void kick(void *ctx) { kicks += ctx != NULL; }

// The text of a field of one line of JSON: "name": "text", without the quotes if it has any.
static char *field(const char *line, const char *name, char *to, size_t room)
{
    char key[32];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *at = strstr(line, key);
    size_t length = 0;
    if (at) {
        at += strlen(key);
        at += *at == '"';
        length = strcspn(at, "\",}");
    }
    snprintf(to, room, "%.*s", (int)length, at ? at : "");
    return to;
}

static void expect(bool holds, const char *id, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s: %s\n", id, what);
        exit(1);
    }
}

static struct exeunt_vcpu *vcpu_of(const char *dialect, struct exeunt_vm **vm)
{
    struct exeunt_policy *policy = exeunt_policy_new();
    struct exeunt_host host = {.size = sizeof host, .ctx = run, .set_attributes = set_attributes, .discard = discard,
                               .dump = dump, .kick = kick};
    struct exeunt_vcpu *vcpu = NULL;
    expect(exeunt_policy_set_kernel(policy, dialect) == 0, dialect, "is a dialect");
    expect(exeunt_policy_add_slot(policy, 0, (uint64_t)MEMORY << 12, true) == 0, dialect, "has memory");
    expect(exeunt_policy_add_slot(policy, 4096, 4096, true) == -EEXIST, dialect, "has no slot twice");
    expect(exeunt_policy_set_memory_faults(policy, EXEUNT_FAULT_CONVERT) == 0, dialect, "converts for faults");
    expect(exeunt_policy_set_dump_failures(policy, true) == 0, dialect, "dumps");
    expect(exeunt_policy_set_metrics(policy, true) == 0, dialect, "counts");
    expect(exeunt_vm_new(policy, &host, vm) == 0 && exeunt_vcpu_new(*vm, &vcpu) == 0, dialect, "is made");
    exeunt_policy_free(policy);
    return vcpu;
}

// One recorded exit. Returns what became of it.
static enum exeunt_served replay(const char *line, const char *id)
{
    char text[64], meaning[256], hex[2 * UNION_BYTES + 1];
    struct exeunt_vm *vm;
    struct exeunt_vcpu *vcpu = vcpu_of(field(line, "dialect", text, sizeof text), &vm);
    unsigned reason = (unsigned)strtoul(field(line, "reason", text, sizeof text), NULL, 10);
    memset(run, 0, sizeof run);
    memcpy(run + REASON, &reason, sizeof reason);
    field(line, "union", hex, sizeof hex);
    for (size_t i = 0; i < strlen(hex) / 2; i++)
        sscanf(hex + 2 * i, "%2hhx", &run[UNION + i]);
    field(line, "rc", text, sizeof text);
    int error = strcmp(text, "EFAULT") == 0 ? EFAULT : strcmp(text, "EHWPOISON") == 0 ? EHWPOISON
              : strcmp(text, "EINTR") == 0 ? EINTR : strcmp(text, "EAGAIN") == 0 ? EAGAIN : 0;
    enum exeunt_served served = exeunt_serve(vcpu, (struct kvm_run *)run, sizeof run, error);
    const struct exeunt_stop *stop = exeunt_vcpu_stop(vcpu);
    field(line, "exit", meaning, sizeof meaning);
    uint64_t ret;
    memcpy(&ret, run + RET, sizeof ret);
    if (strncmp(meaning, "hypercall 12 ", 13) == 0)
        expect(served == EXEUNT_SERVED && (ret == 0 || ret == EINVAL), id, "a conversion is answered");
    if (served == EXEUNT_STOP) {
        char message[64];
        size_t length = exeunt_stop_message(stop, message, sizeof message);
        expect(length > 0 && strlen(message) < sizeof message && !strchr(message, '\n'), id, "has a line");
        expect(exeunt_stop_exit_status(stop) >= 0 && *exeunt_stop_name(stop), id, "has a status and a name");
        expect(exeunt_vm_is_over(vm) == (exeunt_stop_next(stop) <= EXEUNT_NEXT_RESTART), id, "ends its VM");
        expect(strncmp(meaning, "hypercall", 9) != 0, id, "no conversion ends a VM");
    } else {
        expect(stop == NULL && !exeunt_vm_is_over(vm), id, "has no stop");
    }
    size_t length = exeunt_vm_metrics(vm, NULL, 0);
    char *metrics = malloc(length + 1);
    expect(metrics && exeunt_vm_metrics(vm, metrics, length + 1) == length, id, "has metrics");
    expect(!!strstr(metrics, "exeunt_exits_total{") == (served != EXEUNT_NOT_OURS), id, "counts what it serves");
    free(metrics);
    exeunt_vm_free(vm);
    exeunt_vcpu_free(vcpu);
    return served;
}

static void check_arguments(void)
{
    struct exeunt_vm *vm;
    struct exeunt_vcpu *vcpu = vcpu_of("linux-7.2", &vm);
    struct exeunt_vcpu *none = vcpu;
    struct kvm_run *page = (struct kvm_run *)run;
    expect(exeunt_serve(NULL, page, sizeof run, 0) == EXEUNT_ERROR, "null", "vcpu");
    expect(exeunt_serve(vcpu, NULL, sizeof run, 0) == EXEUNT_ERROR, "null", "page");
    expect(exeunt_serve(vcpu, page, 287, 0) == EXEUNT_ERROR, "short", "page");
    expect(exeunt_serve(vcpu, page, sizeof run, EINTR) == EXEUNT_NOT_OURS, "EINTR", "is not ours");
    expect(exeunt_vcpu_new(NULL, &none) == -EINVAL && !none, "null", "vm");
    expect(exeunt_vm_new(NULL, NULL, NULL) == -EINVAL, "null", "all");
    expect(exeunt_policy_add_slot(NULL, 0, 4096, false) == -EINVAL, "null", "policy");
    expect(exeunt_vm_assume(vm, 0, 4097, true) == -EINVAL, "unaligned", "range");
    expect(exeunt_vm_assume(vm, 0, 4096, true) == 0 && exeunt_vm_remove_slot(vm, 0) == 0, "slot", "is removed");
    expect(exeunt_vm_remove_slot(vm, 0) == -ENOENT && exeunt_vm_add_slot(vm, 0, 4096, false) == 0, "slot", "is added");
    struct exeunt_policy *policy = exeunt_policy_new();
    expect(exeunt_policy_set_certificates(policy, run, 7) == -EINVAL, "short", "certificates");
    expect(exeunt_policy_set_certificates_file(policy, NULL) == -EINVAL, "null", "file of certificates");
    expect(exeunt_policy_set_certificates_file(policy, "/nonexistent") == 0, "any", "file of certificates");
    expect(exeunt_policy_set_event(policy, EXEUNT_EVENT_RESET, 9) == -EINVAL, "unknown", "number");
    exeunt_policy_free(policy);
    exeunt_policy_free(NULL), exeunt_vm_free(NULL), exeunt_vcpu_free(NULL);
    exeunt_vcpu_free(vcpu), exeunt_vm_free(vm);
}

int main(int argc, char **argv)
{
    static char line[4096];
    unsigned served[3] = {0};
    FILE *file = argc == 2 ? fopen(argv[1], "r") : NULL;
    if (!file)
        return fprintf(stderr, "usage: replay exits.jsonl\n"), 2;
    check_arguments();
    while (fgets(line, sizeof line, file)) {
        char id[64], arch[16];
        if (strcmp(field(line, "arch", arch, sizeof arch), "x86_64") == 0)
            served[replay(line, field(line, "id", id, sizeof id))]++;
    }
    fclose(file);
    printf("libexeunt %s: %u served, %u not ours, %u stopped; %u attribute calls (%u to private), "
           "%u discards (%u of private memory), %u dumps, %u kicks\n", exeunt_version(), served[0], served[1], served[2],
           attribute_calls, private_calls, discards, private_discards, dumps, kicks);
    return served[0] && served[1] && served[2] && attribute_calls && dumps && kicks ? 0 : 1;
}
