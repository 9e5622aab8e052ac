// The C calls of poolkit-cpu-kernels: the same in each library (amx, avx512_bf16, avx512, avx2). Plain pointers; nothing
// of Python or torch. All pointers are borrowed for the length of a call, but for those that a comment says are kept.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum { KERNELS_ABI = 1 };
enum { DTYPE_FLOAT32, DTYPE_BFLOAT16, DTYPE_INT8 };
enum { NORM_LAYER, NORM_RMS };
enum { ORDER_POST, ORDER_PRE, ORDER_SANDWICH };  // norms after attention and FFN (BERT), before (ModernBERT, Llama), both (Gemma 3)
enum { ACTIVATION_GELU, ACTIVATION_GELU_TANH, ACTIVATION_SILU, ACTIVATION_RELU };
enum { OK = 0, OUT_OF_MEMORY = 1, UNSUPPORTED = 2 };

typedef struct {           // a model as a table
    int32_t hidden;        // all widths are multiples of 32, else UNSUPPORTED
    int32_t embedding;     // columns of the embedding tables: hidden, or less where a projection follows (ELECTRA, small)
    int32_t heads, kv_heads, head_dim, intermediate, layers;
    int32_t norm, order, activation;
    int32_t gated;         // the FFN's activation is multiplied by a second product
    int32_t norm_qk;       // queries and keys are RMS normed, each head by itself (Qwen3, Gemma 3)
    int32_t reach;         // MPNet: the farthest distance in the table of position biases; 0: no such table
    int32_t dtype;         // of weights and activations in the products
    int32_t table_dtype;   // of the embedding tables: float32 or bfloat16
    float epsilon, embedding_scale;
} EncoderSpec;

typedef struct {           // each `const float*` may be null where the model has none; copied or packed
    const void *words, *positions, *types;   // (rows, embedding) in table_dtype; kept: the caller keeps them alive
    const float *norm_weight, *norm_bias;    // of the embeddings
    const float *projection_weight, *projection_bias;  // (hidden, embedding), after the embeddings' norm
    const float *final_norm_weight, *final_norm_bias;
    const float *position_bias;              // (heads, 2 reach + 1), by key minus query + reach; farther ones count as the farthest
} EncoderTensors;

typedef struct {
    // (outputs, inputs), rows in transformers' own order; q rows: heads * head_dim, k and v rows: kv_heads * head_dim.
    // The library itself folds in the attention's scale and reorders rows for rope and gates.
    const float *q_weight, *q_bias, *k_weight, *k_bias, *v_weight, *v_bias;
    const float *output_weight, *output_bias;
    const float *gate_weight, *gate_bias;    // gated: what is activated; else null
    const float *up_weight, *up_bias;        // gated: what it multiplies; else the FFN's first product
    const float *down_weight, *down_bias;
    const float *attention_norm_weight, *attention_norm_bias;   // post: after attention; pre, sandwich: before it
    const float *ffn_norm_weight, *ffn_norm_bias;               // post: after the FFN; pre, sandwich: before it
    const float *after_attention_weight, *after_ffn_weight;     // sandwich alone: norms of what is added to the residual
    const float *q_norm_weight, *k_norm_weight;                 // (head_dim)
    const float *rope;     // (positions, head_dim): head_dim / 2 cosines, then as many sines; null: none. Copied once for equal pointers
    int32_t rope_positions;
    float scale;           // scores are multiplied by it (usually 1 / sqrt(head_dim))
    int32_t before, after; // how many tokens before and after itself a token sees; INT32_MAX: all; after = 0: causal
} LayerTensors;

typedef struct {
    const int32_t *token_ids;    // (tokens)
    const int32_t *positions;    // (tokens); null: 0, 1, … in each text
    const int32_t *types;        // (tokens); null: 0
    const int32_t *cu_seqlens;   // (texts + 1)
    const int32_t *seen;         // (texts): only so many of a text's first tokens are seen as keys; null: all
    const int32_t *prefix;       // (texts): an earlier text whose keys and values come before the text's own, or -1; null: none. Causal layers alone
    int32_t texts;
} EncoderBatch;

int kernels_abi(void);
int kernels_supported(void);       // 1 if this CPU and operating system can run this library. Call it before all others
int kernels_dtypes(void);          // bits 1 << DTYPE_… that the library has
// Threads that all calls of this process together may use, callers included; started when first needed, and anew after a fork.
void kernels_set_threads(int threads);

// UNSUPPORTED where the library lacks what the table asks for.
int encoder_new(const EncoderSpec* spec, const EncoderTensors* tensors, void** encoder);
int encoder_add_layer(void* encoder, const LayerTensors* tensors);
int64_t encoder_bytes(void* encoder);   // packed weights
// May be called from several threads at a time. hidden: (tokens, hidden) float32. A text's rows are the same bits alone,
// in any batch, at any place in it and with any number of threads.
int encoder_run(void* encoder, const EncoderBatch* batch, float* hidden);
void encoder_free(void* encoder);       // at once, or when the last run that is under way has ended

int linear_new(const float* weight, const float* bias, int outputs, int inputs, void** linear);  // float32, any sizes
int linear_run(void* linear, const float* x, int rows, float* y);   // (rows, inputs) to (rows, outputs); the same bits for a row in any batch
void linear_free(void* linear);

// Scores of documents that lie end to end: the sum, over the query's vectors, of the largest product with a document's.
// query: (vectors, dim) float32; documents: (tokens, dim) float32 or bfloat16; scores: (documents). An empty document has 0.
int maxsim(const float* query, int vectors, int dim, const void* documents, int dtype, const int32_t* cu_seqlens, int count, float* scores);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
