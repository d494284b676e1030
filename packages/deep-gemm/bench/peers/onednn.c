// oneDNN's matmul behind four functions, for versions 2 and 3 of its C interface. Weights are taken
// as they are, [n,k] row by row, or packed once in whatever layout the library likes best.
#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t desc_t;
#else
typedef const dnnl_memory_desc_t *desc_t;
#endif

typedef struct {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_t matmul;
  dnnl_memory_t a, d;
  dnnl_memory_t *weights;
  void **packed;  // memory of our own behind `weights`, or null
  int64_t copies;
  char name[128];
} product;

static desc_t describe(int64_t rows, int64_t cols, dnnl_data_type_t type, dnnl_format_tag_t tag) {
  dnnl_dims_t dims = {rows, cols};
#if DNNL_VERSION_MAJOR >= 3
  dnnl_memory_desc_t md = NULL;
  return dnnl_memory_desc_create_with_tag(&md, 2, dims, type, tag) == dnnl_success ? md : NULL;
#else
  dnnl_memory_desc_t *md = malloc(sizeof *md);  // a few hundred bytes, kept
  return dnnl_memory_desc_init_by_tag(md, 2, dims, type, tag) == dnnl_success ? md : NULL;
#endif
}

static int create_matmul(product *p, dnnl_primitive_desc_t *pd, desc_t a, desc_t b, desc_t d) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl_matmul_primitive_desc_create(pd, p->engine, a, b, NULL, d, NULL);
#else
  dnnl_matmul_desc_t op;
  int failed = dnnl_matmul_desc_init(&op, a, b, NULL, d);
  return failed ? failed : (int)dnnl_primitive_desc_create(pd, &op, NULL, p->engine, NULL);
#endif
}

static int pack(product *p, desc_t from, desc_t to, void *b, int64_t copy) {
  size_t bytes = (dnnl_memory_desc_get_size(to) + 4095) / 4096 * 4096;
  dnnl_memory_t plain;
  dnnl_primitive_desc_t pd;
  dnnl_primitive_t reorder;
  if (posix_memalign(&p->packed[copy], 4096, bytes) != 0) return 1;
  if (dnnl_memory_create(&p->weights[copy], to, p->engine, p->packed[copy])) return 1;
  if (dnnl_memory_create(&plain, from, p->engine, b)) return 1;
  if (dnnl_reorder_primitive_desc_create(&pd, from, p->engine, to, p->engine, NULL)) return 1;
  if (dnnl_primitive_create(&reorder, pd)) return 1;
  dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, p->weights[copy]}};
  int failed = dnnl_primitive_execute(reorder, p->stream, 2, args) || dnnl_stream_wait(p->stream);
  dnnl_primitive_destroy(reorder);
  dnnl_primitive_desc_destroy(pd);
  dnnl_memory_destroy(plain);
  return failed;
}

void product_free(product *p) {
  for (int64_t i = 0; i < p->copies; i++) {
    if (p->weights[i]) dnnl_memory_destroy(p->weights[i]);
    free(p->packed[i]);
  }
  free(p->weights);
  free(p->packed);
  if (p->a) dnnl_memory_destroy(p->a);
  if (p->d) dnnl_memory_destroy(p->d);
  if (p->matmul) dnnl_primitive_destroy(p->matmul);
  if (p->stream) dnnl_stream_destroy(p->stream);
  if (p->engine) dnnl_engine_destroy(p->engine);
  free(p);
}

static int build(product *p, int64_t m, int64_t n, int64_t k, int bf16, int packed, void *a,
                 void *b, void *d) {
  dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
  desc_t da = describe(m, k, type, dnnl_ab), db = describe(k, n, type, dnnl_ba);
  desc_t dd = describe(m, n, type, dnnl_ab), any = describe(k, n, type, dnnl_format_tag_any);
  if (!da || !db || !dd || !any) return 1;
  if (dnnl_engine_create(&p->engine, dnnl_cpu, 0)) return 1;
  if (dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags)) return 1;
  dnnl_primitive_desc_t pd;
  if (create_matmul(p, &pd, da, packed ? any : db, dd)) return 1;
  const char *name = "";
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
  snprintf(p->name, sizeof p->name, "%s", name);
  if (dnnl_primitive_create(&p->matmul, pd)) return 1;
  if (dnnl_memory_create(&p->a, da, p->engine, a)) return 1;
  if (dnnl_memory_create(&p->d, dd, p->engine, d)) return 1;
  desc_t chosen = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
  const int64_t bytes = n * k * (bf16 ? 2 : 4);
  for (int64_t i = 0; i < p->copies; i++) {
    void *one = (char *)b + i * bytes;
    int failed = packed ? pack(p, db, chosen, one, i)
                        : (int)dnnl_memory_create(&p->weights[i], db, p->engine, one);
    if (failed) return 1;
  }
  return (int)dnnl_primitive_desc_destroy(pd);
}

// b is `copies` matrices. Null if oneDNN will not.
product *product_create(int64_t m, int64_t n, int64_t k, int64_t copies, int bf16, int packed,
                        void *a, void *b, void *d) {
  product *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->copies = copies;
  p->weights = calloc((size_t)copies, sizeof *p->weights);
  p->packed = calloc((size_t)copies, sizeof *p->packed);
  if (p->weights && p->packed && build(p, m, n, k, bf16, packed, a, b, d) == 0) return p;
  product_free(p);
  return NULL;
}

int product_run(product *p, int64_t copy) {
  dnnl_exec_arg_t args[] = {
      {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->weights[copy]}, {DNNL_ARG_DST, p->d}};
  int failed = dnnl_primitive_execute(p->matmul, p->stream, 3, args);
  return failed ? failed : (int)dnnl_stream_wait(p->stream);
}

const char *product_name(const product *p) { return p->name; }

int library_version(void) {
  const dnnl_version_t *v = dnnl_version();
  return v->major * 10000 + v->minor * 100 + v->patch;
}
