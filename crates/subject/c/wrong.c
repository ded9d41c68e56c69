#include "wrong.h"
#include <string.h>

enum wrong wrong = RIGHT;

static const struct {
    const char *name, *what;
} all[] = {
#define W_ENTRY(identifier, name, what) {name, what},
    EACH_WRONG(W_ENTRY)
#undef W_ENTRY
};

bool wrong_named(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name)) {
            wrong = (enum wrong)(i + 1);
            return true;
        }
    return false;
}

void wrong_list(FILE *to)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        fprintf(to, "%s: %s\n", all[i].name, all[i].what);
}
