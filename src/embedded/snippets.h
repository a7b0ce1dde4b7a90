/*
 * The snippets of snippets.S. Segment registers come in the manual's order: ES CS SS DS FS GS.
 */
#ifndef EMBEDDED_SNIPPETS_H
#define EMBEDDED_SNIPPETS_H

extern const char s_sgdt[], s_sgdt16[], s_sidt[], s_sidt16[];
extern const char s_sldt[], s_sldt16[], s_sldt_m[], s_str[], s_str16[], s_str_m[];
extern const char s_smsw[], s_smsw16[], s_smsw_m[];
extern const char s_pushf[], s_pushf16[], s_popf[], s_popf16[];
extern const char s_lar[], s_lar16[], s_lar_m[], s_lsl[], s_lsl16[], s_lsl_m[];
extern const char s_verr[], s_verr_m[], s_verw[], s_verw_m[];
extern const char s_set_cs[], s_set_sreg6[], s_get_sreg7[], s_pop_fs_use[], s_mov_fs_use[];
extern const char s_ljmp[], s_ljmp16[], s_lcall[], s_lcall16[], s_lret[], s_lret_imm[], s_lret16[];
extern const char s_iret[], s_iret16[];
extern const char s_int40[], s_int41[], s_int42[], s_int43[], s_int44[], s_int45[], s_int46[];
extern const char s_int13[], s_int3[], s_int3_long[], s_into[];
/* In data: opcode, then the far pointer to patch. */
extern char s_ljmp_direct[], s_lcall_direct[];

enum { SNIPPET_SREGS = 6 };
/* [sreg]: PUSH and PUSH16, MOV to a 32-bit and to a 16-bit register and to memory. */
extern const char *const snippets_from[SNIPPET_SREGS][5];
/* [sreg]: POP, POP16, MOV from a register and from memory; none for CS. */
extern const char *const snippets_to[SNIPPET_SREGS][4];

#endif
