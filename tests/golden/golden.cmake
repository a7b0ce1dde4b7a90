# The golden listings: what the translator makes of some guest code, compared with listings.txt.
# NOVT_GOLDEN_UPDATE=1 build/tests/test_golden writes that file anew, for review.

set(golden ${CMAKE_CURRENT_LIST_DIR})
novt_test(unit ${golden}/test_golden.c)
target_include_directories(test_golden PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/unit)
target_compile_definitions(test_golden PRIVATE
    GOLDEN_FILE="${golden}/listings.txt"
    GOLDEN_NOW="${CMAKE_CURRENT_BINARY_DIR}/listings.now.txt")
