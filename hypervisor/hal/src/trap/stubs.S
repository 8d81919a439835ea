# The 256 interrupt stubs, 32 bytes apart.
#
# Entered by an interrupt gate: IF clear, the processor's frame on the stack (error code, RIP, CS, RFLAGS, RSP,
# SS). All but the exceptions' stubs change no register and, when GS is the LP's own, touch only its block.

.section .text.trap, "ax", @progbits
.code64
.balign 32
.global trap_stubs
.type trap_stubs, @function
trap_stubs:
.set vector, 0
.rept 32
    .balign 32
    .if vector == 2
        jmp trap_nmi
    .else
        # These push an error code of their own (APM 2 table 8-1); the frame is made alike for the others.
        .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
        .else
            pushq $0
        .endif
        pushq $vector
        jmp trap_exception
    .endif
    .set vector, vector + 1
.endr
# An interrupt: note the vector, and return with IF clear so that the next one stays pending.
.rept 224
    .balign 32
    movl $vector, %gs:{TAKEN}
    andl $~0x200, 16(%rsp)
    iretq
    .set vector, vector + 1
.endr
.size trap_stubs, . - trap_stubs

.balign 16
trap_nmi:
    cmpb $0, {crashed}(%rip)
    jne 1f
    lock incl %gs:{NMI_COUNT}
    # An LP about to halt must not sleep over what this NMI announces: it goes on behind its HLT (`virt::halt`).
    push %rax
    lea halt_window_begin(%rip), %rax
    cmp %rax, 8(%rsp)
    jb 3f
    lea halt_window_end(%rip), %rax
    cmp %rax, 8(%rsp)
    jae 3f
    mov %rax, 8(%rsp)
3:  pop %rax
    iretq
1:  lock incl {stopped}(%rip)
2:  cli
    hlt
    jmp 2b

# Builds the rest of `Frame`. The processor aligned the stack, and the frame is a multiple of 16 bytes.
.balign 16
trap_exception:
.irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    push %\register
.endr
    cld
    mov %rsp, %rdi
    call {exception}
