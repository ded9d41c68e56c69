// The ways in which this VMM can be wrong, one at a time: --wrong NAME. The names, and what they mean, are those of
// crates/check/src/judge/variants.
#ifndef WRONG_H
#define WRONG_H

#include <stdbool.h>
#include <stdio.h>

// W(identifier, name, what it does)
#define EACH_WRONG(W)                                                                                              \
    W(MASKS_BIT_31, "masks-bit-31", "clears bit 31 of the type before it looks at it")                             \
    W(TYPE_IS_A_BYTE, "type-is-a-byte", "looks at the low byte of the type only")                                  \
    W(BIT_31_REBOOTS, "bit-31-reboots", "starts the guest anew for a type with bit 31")                            \
    W(REPORTS_16_WORDS, "reports-16-words", "reports all 16 words of data of a termination")                       \
    W(INDEXES_BY_NDATA, "indexes-by-ndata", "takes ndata for a length without a limit")                            \
    W(BELIEVES_NDATA, "believes-ndata", "reads data[..ndata] of a reset without capability 215")                   \
    W(UNKNOWN_EVENT_CRASHES, "unknown-event-crashes", "has no arm for a type that it does not know")               \
    W(UNKNOWN_EVENT_REBOOTS, "unknown-event-reboots", "starts the guest anew for an unknown type")                 \
    W(UNKNOWN_EVENT_SUCCEEDS, "unknown-event-succeeds", "takes an unknown type for a shutdown")                    \
    W(UNKNOWN_EVENT_IS_IGNORED, "unknown-event-is-ignored", "enters again after an unknown type")                  \
    W(UNKNOWN_EVENT_WITHOUT_A_NUMBER, "unknown-event-without-a-number", "does not name the type")                  \
    W(TERMINATION_WITHOUT_A_REASON, "termination-without-a-reason", "drops the data of a termination")             \
    W(TERMINATION_REBOOTS, "termination-reboots", "starts a guest anew that asked to be terminated")               \
    W(CANNOT_IGNORE, "cannot-ignore", "ends at a reset that it was told to ignore")                                \
    W(ENABLES_ALL_HYPERCALLS, "enables-all-hypercalls", "enables the whole mask that the kernel offers")           \
    W(NEGATIVE_ERRNO, "negative-errno", "answers -EINVAL")                                                         \
    W(ERRNO_OF_THE_IOCTL, "errno-of-the-ioctl", "answers EIO where EINVAL is meant")                               \
    W(DOES_NOT_WRITE_SUCCESS, "does-not-write-success", "leaves ret as it is when all went well")                  \
    W(SAYS_DONE_WHEN_IT_FAILED, "says-done-when-it-failed", "answers 0 for a page that could not be changed")      \
    W(STOPS_AT_A_FAILED_CONVERSION, "stops-at-a-failed-conversion", "ends the VM when a page cannot be changed")   \
    W(COUNTS_LARGE_PAGES, "counts-large-pages", "takes npages for pages of 2 MiB when the hint says so")           \
    W(COUNTS_IN_2M, "counts-in-2m", "divides npages by 512 when the hint says 2 MiB")                              \
    W(ONLY_ZERO_IS_SHARED, "only-zero-is-shared", "takes attributes other than 0 for private")                     \
    W(MASKS_RESERVED_BITS, "masks-reserved-bits", "does not look at reserved attribute bits")                      \
    W(CLIPS_WHAT_WRAPS, "clips-what-wraps", "converts 16 pages where the end of the range wraps")                  \
    W(ASKS_FOR_WHAT_IS_NO_MEMORY, "asks-for-what-is-no-memory", "hands the guest's range to the ioctl as it is")   \
    W(DISCARDS_NOTHING, "discards-nothing", "changes attributes and keeps the memory of the old side")             \
    W(DISCARDS_SHARED_ONLY, "discards-shared-only", "keeps private memory when pages become shared")               \
    W(DISCARDS_FIRST, "discards-first", "discards before it changes the attributes")                               \
    W(DISCARDS_THE_NEW_SIDE, "discards-the-new-side", "discards the memory that the pages use now")                \
    W(DISCARDS_LATE, "discards-late", "lets another vCPU convert between attributes and discard")                  \
    W(FIRST_SLOT_ONLY, "first-slot-only", "converts what lies in the first slot of a range")                       \
    W(DISCARDS_IN_FRONT, "discards-in-front", "discards what lies in front of a long range, too")                  \
    W(CONVERTS_A_PAGE_MORE, "converts-a-page-more", "changes the page in front of a long range, too")              \
    W(REFUSES_WHERE_NO_MEMORY_IS, "refuses-where-no-memory-is", "refuses to share a device's range")               \
    W(REFUSES_REPEATS, "refuses-repeats", "answers EINVAL to a conversion that is done already")                   \
    W(UNKNOWN_HYPERCALL_SUCCEEDS, "unknown-hypercall-succeeds", "answers 0 to an unknown hypercall")               \
    W(EVERY_HYPERCALL_CONVERTS, "every-hypercall-converts", "does not look at the number of a hypercall")          \
    W(SAVES_WITHOUT_DRAINING, "saves-without-draining", "reads the state with a completion pending")               \
    W(DRAINS_ONE_EXIT_ONLY, "drains-one-exit-only", "enters once with immediate_exit")                             \
    W(DRAINS_BY_RUNNING, "drains-by-running", "enters once without immediate_exit before it saves")                \
    W(RETRIES_EINVAL, "retries-einval", "enters again after KVM_RUN failed with EINVAL")                           \
    W(EINVAL_IS_AN_END, "einval-is-an-end-like-any-other", "ends with success after EINVAL")                       \
    W(EFAULT_IS_ENOUGH, "efault-is-enough", "takes EFAULT for a memory fault, whatever the reason")                \
    W(EFAULT_IS_RETRIED, "efault-is-retried", "enters again after EFAULT without a memory fault")                  \
    W(UNKNOWN_FLAGS_ARE_MASKED, "unknown-flags-are-masked", "looks at bit 3 of the flags and no other")            \
    W(RETRIES_FOR_EVER, "retries-for-ever", "answers the same fault again and again")                              \
    W(NO_PROGRESS_IS_SUCCESS, "no-progress-is-success", "gives up on a fault with success")                        \
    W(POISON_IS_A_FAULT, "poison-is-a-fault-like-any-other", "takes EHWPOISON for EFAULT")                         \
    W(POISON_IS_CONVERTED, "poison-is-converted", "makes a poisoned page shared and enters again")                 \
    W(FAULTS_OUTSIDE_ARE_RETRIED, "faults-outside-are-retried", "enters again where no memory is")                 \
    W(FAULTS_OUTSIDE_ARE_CONVERTED, "faults-outside-are-converted", "makes private what is no memory")             \
    W(FAULTS_DISCARD_NOTHING, "faults-discard-nothing", "keeps the old side when it converts for a fault")         \
    W(CONVERTS_UNASKED, "converts-unasked", "converts for a fault although nobody chose that")                     \
    W(LOOKS_AT_THE_FIRST_PAGE_ONLY, "looks-at-the-first-page-only", "checks one page of the buffer")               \
    W(WRITES_WHERE_NO_MEMORY_IS, "writes-where-no-memory-is", "says done where no memory is")                      \
    W(ASKS_FOR_A_PAGE_MORE, "asks-for-a-page-more", "answers ENOSPC with one page too many")                       \
    W(ASKS_IN_BYTES, "asks-in-bytes", "answers ENOSPC with bytes in the place of pages")                           \
    W(DOES_NOT_SAY_HOW_MANY, "does-not-say-how-many", "answers ENOSPC and leaves npages as it is")                 \
    W(NEGATIVE_ERRNO_FOR_CERTIFICATES, "negative-errno-for-certificates", "answers -EIO")                          \
    W(EINVAL_FOR_CERTIFICATES, "einval-for-certificates", "answers EINVAL to a bad request")                       \
    W(PRIVATE_BUFFER_SUCCEEDS, "private-buffer-succeeds", "says done for a buffer that is private")                \
    W(WRITES_BESIDE_A_PRIVATE_BUFFER, "writes-beside-a-private-buffer", "writes behind a private buffer")          \
    W(READS_WITHOUT_A_LOCK, "reads-without-a-lock", "reads the certificate file while it may change")              \
    W(UNLOCKS_EARLY, "unlocks-early", "gives the lock back when the file is read")                                 \
    W(WAITS_FOR_EVER, "waits-for-ever", "waits for the lock as long as it takes")                                  \
    W(BUSY_IS_BROKEN, "busy-is-broken", "answers EIO when the lock cannot be had")                                 \
    W(NO_LAST_ENTRY, "no-last-entry", "writes a table without an entry of zeroes")                                 \
    W(GUIDS_IN_MEMORY_ORDER, "guids-in-memory-order", "writes GUIDs with three fields reversed")                   \
    W(ENABLES_CERTIFICATES_UNASKED, "enables-certificates-unasked", "does not ask for the command")                \
    W(ENABLES_CERTIFICATES_LATE, "enables-certificates-late", "enables certificates after the vCPUs")              \
    W(READS_CERTIFICATES_ONCE, "reads-certificates-once", "gives the certificates of its start")                   \
    W(DOES_NOT_ENABLE_218, "does-not-enable-218", "leaves capability 218 off")                                     \
    W(LOSES_THE_BYTE, "loses-the-byte", "does not carry the byte of the triple fault over")                        \
    W(LOSES_THE_FLAG, "loses-the-flag", "carries a pending triple fault over without its flag")                    \
    W(RUNS_UNRESTORED, "runs-what-it-could-not-restore", "runs a target that cannot take the fault")               \
    W(CLEARS_WHAT_IT_READ, "clears-what-it-read", "takes a pending triple fault away as it reads it")              \
    W(ONLY_SETS_AND_NEVER_CLEARS, "only-sets-and-never-clears", "leaves the flag out for pending = 0")             \
    W(ALWAYS_SETS_THE_FLAG, "always-sets-the-flag", "sets the flag without capability 218")                        \
    W(TRIES_AGAIN_WITHOUT_READING, "tries-again-without-reading", "sets a bad flag, then tries without it")        \
    W(UNKNOWN_EXIT_CRASHES, "unknown-exit-crashes", "looks the name of an exit up in a table that ends")           \
    W(UNKNOWN_EXIT_IS_IGNORED, "unknown-exit-is-ignored", "enters again after an unknown exit")                    \
    W(UNKNOWN_EXIT_SUCCEEDS, "unknown-exit-succeeds", "ends with success after an unknown exit")                   \
    W(UNKNOWN_EXIT_WITHOUT_BYTES, "unknown-exit-without-bytes", "names the number and not the bytes")              \
    W(EINTR_ENDS, "eintr-ends", "takes a signal for the end")                                                      \
    W(EAGAIN_ENDS, "eagain-ends", "takes EAGAIN of a processor that is being started for the end")                 \
    W(SERVES_THE_STALE_EXIT, "serves-the-stale-exit", "serves the exit before a signal once more")                 \
    W(READS_THE_PAGE_TWICE, "reads-the-page-twice", "reads the arguments again after it checked them")             \
    W(SHUTDOWN_STOPS_ONE_VCPU, "shutdown-stops-one-vcpu", "goes on with the other vCPUs")                          \
    W(SHUTDOWN_IS_IGNORED, "shutdown-is-ignored", "enters a vCPU again that was shut down")                        \
    W(CERTIFICATES_BY_THE_POSTING, "certificates-by-the-posting", "knows requests by the number 40")               \
    W(FAULTS_BY_THE_POSTING, "faults-by-the-posting", "knows memory faults by the number 38")                      \
    W(TERMINATIONS_BY_THE_POSTING, "terminations-by-the-posting", "knows terminations by 0x80000004")              \
    W(ENABLES_UNASKED, "enables-unasked", "enables a capability without asking whether it is there")

#define W_IDENTIFIER(identifier, name, what) identifier,
enum wrong { RIGHT, EACH_WRONG(W_IDENTIFIER) };
#undef W_IDENTIFIER

extern enum wrong wrong;

bool wrong_named(const char *name);
void wrong_list(FILE *to);

#endif
