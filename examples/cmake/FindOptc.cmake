# Finds optc, and defines
#
#   optc_compile(TARGET name MODEL file [OUTPUT file] [DATA path] [PASSES text] [FOR target] [BUDGET text] [FLAGS ...])
#
# which adds the target `name`: MODEL compiled to OUTPUT (NAME.optc.onnx in the binary folder unless given), built again
# when anything that it was made of changes. The path of the result is in the target's property OPTC_OUTPUT.

find_program(Optc_EXECUTABLE optc DOC "The optc command")
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Optc REQUIRED_VARS Optc_EXECUTABLE)

function(optc_compile)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "TARGET;MODEL;OUTPUT;DATA;PASSES;FOR;BUDGET" "FLAGS")
  if(NOT arg_TARGET OR NOT arg_MODEL)
    message(FATAL_ERROR "optc_compile needs TARGET and MODEL")
  endif()
  get_filename_component(model "${arg_MODEL}" ABSOLUTE)
  if(NOT arg_OUTPUT)
    get_filename_component(stem "${arg_MODEL}" NAME_WE)
    set(arg_OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/${stem}.optc.onnx")
  endif()
  set(command "${Optc_EXECUTABLE}" "${model}" -o "${arg_OUTPUT}" --depfile "${arg_OUTPUT}.d" --quiet)
  foreach(option DATA PASSES FOR BUDGET)
    if(arg_${option})
      string(TOLOWER "${option}" flag)
      if(option STREQUAL "FOR")
        set(flag "target")
      elseif(option STREQUAL "DATA")
        get_filename_component(arg_DATA "${arg_DATA}" ABSOLUTE)
      endif()
      list(APPEND command "--${flag}" "${arg_${option}}")
    endif()
  endforeach()
  add_custom_command(
    OUTPUT "${arg_OUTPUT}"
    COMMAND ${command} ${arg_FLAGS}
    DEPENDS "${model}"
    DEPFILE "${arg_OUTPUT}.d"
    COMMENT "Compiling ${arg_MODEL}"
    VERBATIM)
  add_custom_target("${arg_TARGET}" ALL DEPENDS "${arg_OUTPUT}")
  set_target_properties("${arg_TARGET}" PROPERTIES OPTC_OUTPUT "${arg_OUTPUT}")
endfunction()
