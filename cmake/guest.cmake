# Guests: freestanding 32-bit programs for the machine, linked at 1 MiB as multiboot images.
# novt_guest(NAME SOURCES... SCRIPT ld-script INCLUDES dirs...) makes ${CMAKE_BINARY_DIR}/guests/NAME.elf
# and a target guest_NAME.
#
# Always by gcc: clang's assembler does not know all instructions that the guests try (BOUND).
find_program(NOVT_GUEST_CC NAMES gcc REQUIRED)
find_program(NOVT_LD NAMES ld ${CMAKE_LINKER} REQUIRED)

set(NOVT_GUEST_FLAGS
    -m32 -march=i686 -mno-sse -mno-mmx -msoft-float -ffreestanding -nostdlib -fno-pic -fno-pie
    -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-strict-aliasing
    -fno-builtin -O2 -std=gnu11 -Wall -Wextra -Wshadow -Wvla -Werror)

function(novt_guest name)
    cmake_parse_arguments(G "" "SCRIPT" "SOURCES;INCLUDES" ${ARGN})
    set(dir ${CMAKE_BINARY_DIR}/guests/${name}.dir)
    file(MAKE_DIRECTORY ${dir})
    set(includes)
    foreach(include ${G_INCLUDES})
        list(APPEND includes -I${include})
    endforeach()
    set(objects)
    foreach(source ${G_SOURCES})
        file(RELATIVE_PATH object ${CMAKE_SOURCE_DIR} ${source})
        string(REPLACE "/" "_" object ${object})
        set(object ${dir}/${object}.o)
        add_custom_command(
            OUTPUT ${object}
            COMMAND ${NOVT_GUEST_CC} ${NOVT_GUEST_FLAGS} ${includes} -MD -MF ${object}.d -MT ${object}
                    -c ${source} -o ${object}
            DEPENDS ${source}
            DEPFILE ${object}.d
            COMMENT "Building guest object ${object}"
            VERBATIM)
        list(APPEND objects ${object})
    endforeach()
    set(elf ${CMAKE_BINARY_DIR}/guests/${name}.elf)
    add_custom_command(
        OUTPUT ${elf}
        COMMAND ${NOVT_LD} -m elf_i386 -static -z noexecstack --no-warn-rwx-segments -T ${G_SCRIPT} -o ${elf} ${objects}
        DEPENDS ${objects} ${G_SCRIPT}
        COMMENT "Linking guest ${name}"
        VERBATIM)
    add_custom_target(guest_${name} DEPENDS ${elf})
endfunction()
