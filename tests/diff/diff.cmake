# More runs of the tests in diff/, in other layouts of the address space and with other choices of the
# C library. Included by tests/CMakeLists.txt. 77 means that the host does not allow the layout.

function(diff_again name)
    add_test(NAME ${name} COMMAND ${ARGN})
    set_tests_properties(${name} PROPERTIES LABELS "diff;translated" TIMEOUT 300 SKIP_RETURN_CODE 77)
endfunction()

set(safety $<TARGET_FILE:test_safety>)
diff_again(test_safety_compat_layout
    sh -c "setarch -L true 2>/dev/null && exec setarch -L \"$0\" || exit 77" ${safety})
diff_again(test_safety_unlimited_stack
    sh -c "ulimit -s unlimited 2>/dev/null && exec \"$0\" || exit 77" ${safety})

set(hidden -AVX2_Usable,-AVX2,-AVX512F_Usable,-AVX512F,-AVX512VL,-ERMS,-FSRM)
diff_again(test_safety_without_avx test_safety)
set_tests_properties(test_safety_without_avx PROPERTIES
    ENVIRONMENT "GLIBC_TUNABLES=glibc.cpu.hwcaps=${hidden}")

diff_again(test_differential_native test_differential --cases 20000 --seed 3 --native)
set_tests_properties(test_differential PROPERTIES TIMEOUT 900)
