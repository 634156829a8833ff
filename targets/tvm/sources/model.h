/* A compiled model. Any C or C++ program may use it; nothing else need be installed. */
#ifndef OPTC_MODEL_H
#define OPTC_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  const char* name;
  const char* dtype; /* as numpy writes it: "<f4", "<i8", "|u1" */
  int rank;
  const int64_t* dims; /* -1 where the size is known only when the model runs */
} optc_tensor;

extern const int optc_input_count, optc_output_count, optc_step_count;
extern const optc_tensor optc_inputs[], optc_outputs[];
extern const char* const optc_steps[]; /* what each step of a run is called */

typedef struct optc_model optc_model;

/* A model ready to run on so many threads (0: one for each core), or NULL. One model serves one caller at a time. */
optc_model* optc_open(int threads);
void optc_close(optc_model* model);

/* The sizes of the outputs for sizes of the inputs. Returns 0, or -1 where the inputs do not fit (see optc_error). */
int optc_shapes(optc_model* model, const int64_t* const* input_dims, int64_t* const* output_dims);

/* One run, from `inputs` to `outputs`, which hold what optc_shapes says. Returns 0, or -1 (see optc_error). */
int optc_run(optc_model* model, const void* const* inputs, const int64_t* const* input_dims, void* const* outputs);

/* Adds the seconds of each step of the runs that follow to `seconds`, one a step; NULL: no longer. */
void optc_time(optc_model* model, double* seconds);

/* What went wrong last in this thread. */
const char* optc_error(void);

#ifdef __cplusplus
}
#endif
#endif
