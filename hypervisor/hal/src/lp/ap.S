# From a start-up IPI to Rust (APM 2 §14.6). The code is copied to a page below 1 MiB and finds out which by CS.
# Its parameters lie at the end of that page: {CR3}: page table, {STACK}: stack top, {ENTRY}: Rust, {LP}: number.
# %ebx: linear address of the page throughout.

.section .rodata.ap, "a", @progbits
.balign 16
.global ap_begin, ap_end
.code16
ap_begin:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movzwl %ax, %ebx
    shl $4, %ebx
    # With paging still off the page may write its own pointers.
    lea ap_gdt - ap_begin(%ebx), %eax
    mov %eax, ap_gdtr - ap_begin + 2
    lea ap_32 - ap_begin(%ebx), %eax
    mov %eax, ap_far_32 - ap_begin
    lea ap_64 - ap_begin(%ebx), %eax
    mov %eax, ap_far_64 - ap_begin
    lgdtl ap_gdtr - ap_begin
    mov $0x11, %eax                     # PE, ET
    mov %eax, %cr0
    ljmpl *(ap_far_32 - ap_begin)

.code32
ap_32:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %ss
    mov $0x20, %eax                     # PAE
    mov %eax, %cr4
    mov {CR3}(%ebx), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               # EFER
    rdmsr
    or $0x900, %eax                     # LME, NXE
    wrmsr
    mov $0x80010033, %eax               # PG, WP, NE, ET, MP, PE: caches on
    mov %eax, %cr0
    ljmpl *(ap_far_64 - ap_begin)(%ebx)

.code64
ap_64:
    mov %ebx, %ebx
    mov {STACK}(%rbx), %rsp
    mov {LP}(%rbx), %edi
    mov {ENTRY}(%rbx), %rax
    xor %ebp, %ebp
    push %rbp                           # no return address
    jmp *%rax

.balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08: 64-bit code
    .quad 0x00cf93000000ffff            # 0x10: data
    .quad 0x00cf9b000000ffff            # 0x18: 32-bit code
ap_gdtr:
    .short ap_gdtr - ap_gdt - 1
    .long 0
ap_far_32:
    .long 0
    .short 0x18
ap_far_64:
    .long 0
    .short 0x08
ap_end:
.code64
