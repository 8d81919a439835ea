# From the loader (PVH, 32-bit protected mode, EBX = start information) and from a start-up IPI to 64-bit Rust.

.section .note.Xen, "a", @note
.balign 4
    .long 4, 8, 18                                      # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad boot_entry

.section .boot, "ax", @progbits
.code32
.global boot_entry
boot_entry:
    cli
    cld
    mov %ebx, %esi
    # Four tables of 2 MiB pages map the first 4 GiB to themselves.
    mov $boot_pd, %ebx
    mov $0x83, %eax                                     # present, writable, large
    xor %ecx, %ecx
2:  mov %eax, (%ebx,%ecx,8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jne 2b
    lea 3(%ebx), %eax
    mov $boot_pdpt, %ecx
    mov %eax, (%ecx)
    add $0x1000, %eax
    mov %eax, 8(%ecx)
    add $0x1000, %eax
    mov %eax, 16(%ecx)
    add $0x1000, %eax
    mov %eax, 24(%ecx)
    or $3, %ecx
    mov %ecx, boot_pml4
    xor %ebp, %ebp                                      # not by a start-up IPI

boot_long:
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xa0, %eax                                     # PAE, PGE
    mov %eax, %cr4
    mov $0xc0000080, %ecx                               # EFER
    rdmsr
    or $0x900, %eax                                     # LME, NXE
    wrmsr
    mov $0x80010033, %eax                               # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    lgdt boot_gdtr
    ljmp $8, $boot_64

.code64
boot_64:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    test %ebp, %ebp
    jnz 3f
    mov $boot_stacks + {STACK_BYTES}, %esp
    mov %esi, %edi
    call {start}
    # A processor that was started: its APIC id, which CPUID tells, is its index.
3:  mov $1, %eax
    cpuid
    shr $24, %ebx
    cmp ${MAX_VPS}, %ebx
    jae 4f
    mov %ebx, %edi
    mov %ebp, %esi
    lea 1(%ebx), %eax
    imul ${STACK_BYTES}, %eax, %eax
    lea boot_stacks(%eax), %esp
    call {start_secondary}
4:  cli
    hlt
    jmp 4b

# What a start-up IPI starts, in a copy below 1 MiB: 16-bit code that knows its place by CS.
.code16
.global ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movzwl %ax, %ebp
    lgdtl ap_gdtr - ap_trampoline
    mov $0x11, %eax                                     # ET, PE
    mov %eax, %cr0
    ljmpl $0x18, $ap_32
.balign 8
ap_gdtr:
    .short boot_gdtr - boot_gdt - 1
    .long boot_gdt
ap_trampoline_end:

.code32
ap_32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    jmp boot_long

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff                            # 0x10: data
    .quad 0x00cf9b000000ffff                            # 0x18: 32-bit code
boot_gdtr:
    .short boot_gdtr - boot_gdt - 1
    .long boot_gdt

.section .bss.boot, "aw", @nobits
.balign 4096
.global boot_pml4, boot_pdpt
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4 * 4096
boot_stacks:
    .skip {MAX_VPS} * {STACK_BYTES}
