# From the loader to Rust: 32-bit protected mode without paging, to 64-bit mode at the image's linked address.
#
# PVH: %ebx = start information. Multiboot2: %eax = magic, %ebx = information. Rust gets the magic number in
# %edi and the information's address in %esi.

.section .boot.multiboot2, "a", @progbits
.balign 8
multiboot2_header:
    .long {HEADER_MAGIC}
    .long 0                                             # i386 protected mode
    .long multiboot2_header_end - multiboot2_header
    .long -({HEADER_MAGIC} + (multiboot2_header_end - multiboot2_header)) & 0xffffffff
    .short 3, 0                                         # entry address
    .long 12
    .long boot_multiboot2
    .balign 8
    .short 6, 0                                         # modules on page borders
    .long 8
    .short 0, 0
    .long 8
multiboot2_header_end:

.section .note.Xen, "a", @note
.balign 4
    .long 4, 8, 18                                      # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad boot_pvh

.section .boot.text, "ax", @progbits
.code32
.global boot_pvh
boot_pvh:
    mov ${PVH_MAGIC}, %edi
    jmp 1f
boot_multiboot2:
    mov %eax, %edi
1:  mov %ebx, %esi
    cli
    cld

    # Four tables of 2 MiB pages map the first 4 GiB.
    mov $(boot_pd - {VMA}), %ebx
    mov $0x83, %eax                                     # present, writable, large
    xor %ecx, %ecx
2:  mov %eax, (%ebx,%ecx,8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jne 2b
    # They appear at 0 (where this code runs), at the direct map, and the first two at the image's address.
    lea 3(%ebx), %eax
    mov $(boot_pdpt_low - {VMA}), %ecx
    mov $(boot_pdpt_image - {VMA}), %edx
    mov %eax, (%ecx)
    mov %eax, 510*8(%edx)
    add $0x1000, %eax
    mov %eax, 8(%ecx)
    mov %eax, 511*8(%edx)
    add $0x1000, %eax
    mov %eax, 16(%ecx)
    add $0x1000, %eax
    mov %eax, 24(%ecx)
    mov $(boot_pml4 - {VMA}), %ebx
    or $3, %ecx
    or $3, %edx
    mov %ecx, (%ebx)
    mov %ecx, {DIRECT_MAP_SLOT}*8(%ebx)
    mov %edx, 511*8(%ebx)

    mov %ebx, %cr3
    mov $0x20, %eax                                     # PAE
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
    movabs $boot_high, %rax
    jmp *%rax

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff                            # 0x10: data
boot_gdtr:
    .short boot_gdtr - boot_gdt - 1
    .long boot_gdt

.section .text.boot, "ax", @progbits
.code64
boot_high:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %edi, %edi
    mov %esi, %esi
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp
    call {start}

# Loaders clear what the file does not hold.
.section .bss.boot, "aw", @nobits
.balign 4096
boot_pml4:
    .skip 4096
boot_pdpt_low:
    .skip 4096
boot_pdpt_image:
    .skip 4096
boot_pd:
    .skip 4 * 4096
.global boot_stack_bottom, boot_stack_top
boot_stack_bottom:
    .skip {STACK_BYTES}
boot_stack_top:
