// One new token of each of B texts through all layers of a decoder: what `cached_forward` does for T = 1.
//
// Reading the weights from memory takes most of the time of this step, so all else must cost almost
// nothing: one call for the whole step and one team of threads, which share out the rows of each matrix, and
// the heads, and wait for each other where one needs what another has computed.
//
// Legend: B texts, C width of the model, H query heads, K key/value heads, D width of a head, S stored
// positions, L layers, V vocabulary entries. All numbers but the weights of matrices are float32.
#include "product.h"

struct Norm {
  const float *weight, *bias;  // bias: null for none
};

struct Layer {
  Norm norm_1, norm_2;
  const float *query_norm, *key_norm;  // null for none
  Matrix qkv, output, gate, up, down;  // gate: no rows unless SwiGLU
};

struct Model {
  int64_t layers, d_model, heads, kv_heads, d_head, d_ff, rotary_width, window;  // window 0: none
  int64_t rms, feedforward;  // feedforward: 0 GELU (tanh), 1 GELU, 2 SwiGLU
  float norm_eps, scale;
  const Layer* layer;
  Norm norm;
  Matrix head;
};

struct Batch {
  int64_t size, capacity, slots;    // texts; positions that the cache has room for; texts it has room for
  const int64_t *slot, *stored;     // [B] where each text lies in the cache, and how many positions of it
  float *keys, *values;             // [L, slots, K, S, D], with room for the new position
  const float *cosines, *sines;     // [B, rotary_width / 2], or null
  const float* bias;                // [H, bias_length]: what is added to a score, by distance; or null
  int64_t bias_length;
  float* x;                         // [B, C] in: embeddings
  float* logits;                    // [B, V] out
};

static int64_t padded(int64_t columns) { return (columns + 31) / 32 * 32; }

static void normalise(const float* x, int64_t C, const Norm& norm, const Model& m, float* y, bool rms) {
  float mean = 0, square = 0;
  for (int64_t c = 0; c < C && !rms; c++) mean += x[c] / C;
#pragma omp simd reduction(+ : square)
  for (int64_t c = 0; c < C; c++) square += (x[c] - mean) * (x[c] - mean);
  float factor = 1 / sqrtf(square / C + m.norm_eps);
  for (int64_t c = 0; c < C; c++)
    y[c] = (x[c] - mean) * factor * norm.weight[c] + (norm.bias ? norm.bias[c] : 0);
}

static void normalise_all(const float* x, int64_t B, const Norm& norm, const Model& m, float* y, int64_t stride) {
  for (int64_t b = 0; b < B; b++) normalise(x + b * m.d_model, m.d_model, norm, m, y + b * stride, m.rms);
}

// One query or key head: its own norm, if there is one, then the turn for its position.
static void prepare_head(float* head, const float* norm, const Model& m, const float* cosines, const float* sines) {
  const int64_t half = m.rotary_width / 2;
  if (norm) normalise(head, m.d_head, Norm{norm, nullptr}, m, head, true);
  for (int64_t f = 0; cosines && f < half; f++) {
    float a = head[f], b = head[f + half];
    head[f] = a * cosines[f] - b * sines[f];
    head[f + half] = a * sines[f] + b * cosines[f];
  }
}

// One query over S positions: softmax(scale * q k + bias) v.
static void attend(const float* q, const float* keys, const float* values, int64_t S, int64_t D, float scale,
                   const float* bias, float* scores, float* out) {
  float highest = -INFINITY, sum = 0;
  for (int64_t s = 0; s < S; s++) {
    const float* key = keys + s * D;
    Lanes products = {};
    int64_t d = 0;
    for (; d + LANES <= D; d += LANES) products += load(q + d) * load(key + d);
    float dot = total(products);
    for (; d < D; d++) dot += q[d] * key[d];
    scores[s] = dot * scale + (bias ? bias[S - 1 - s] : 0);
    highest = std::max(highest, scores[s]);
  }
  for (int64_t s = 0; s < S; s++) sum += scores[s] = expf(scores[s] - highest);
  int64_t d = 0;
  for (; d + 32 <= D; d += 32) {  // a stretch of columns at a time, whose sums stay in registers
    Lanes sums[32 / LANES] = {};
    for (int64_t s = 0; s < S; s++)
      for (int j = 0; j < 32 / LANES; j++) sums[j] += load(values + s * D + d + LANES * j) * scores[s];
    for (int i = 0; i < 32; i++) out[d + i] = sums[i / LANES][i % LANES] / sum;
  }
  for (; d < D; d++) {
    float rest = 0;
    for (int64_t s = 0; s < S; s++) rest += values[s * D + d] * scores[s];
    out[d] = rest / sum;
  }
}

static float activate(float gate, float up, int64_t kind) {
  if (kind == 2) return gate / (1 + expf(-gate)) * up;
  if (kind == 1) return up / 2 * (1 + erff(up * 0.70710678f));
  return up / 2 * (1 + tanhf(0.79788456f * (up + 0.044715f * up * up * up)));
}

// Where the cache holds the first position of a text's key head, in a layer.
static int64_t cache_row(const Model& m, const Batch& t, int64_t layer, int64_t b, int64_t k) {
  return ((layer * t.slots + t.slot[b]) * m.kv_heads + k) * t.capacity * m.d_head;
}

static const float* row(const float* table, int64_t b, int64_t width) { return table ? table + b * width : table; }

extern "C" void decode_step(const Model* model, const Batch* batch, int threads) {
  const Model& m = *model;
  const Batch& t = *batch;
  const int64_t B = t.size, C = m.d_model, H = m.heads, K = m.kv_heads, D = m.d_head, F = m.d_ff;
  const int64_t N = H + 2 * K, half = m.rotary_width / 2;
  const int64_t C32 = padded(C), HD32 = padded(H * D), F32 = padded(F);
  std::vector<float> qkv(B * N * D), heads(B * HD32), gate(B * F), hidden(B * F32);
  Team team;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    team.size = omp_get_num_threads();
    std::vector<float> x(B * C32), scores(t.capacity);  // of each thread its own
    for (int64_t l = 0; l < m.layers; l++) {
      const Layer& layer = m.layer[l];
      normalise_all(t.x, B, layer.norm_1, m, x.data(), C32);
      product(team, layer.qkv, B, x.data(), C32, qkv.data(), N * D, false);
      team.wait();
      // Keys and values go to the cache; then each query head reads those of its own text.
      team.share(B * K, 1, [&](int64_t i) {
        int64_t b = i / K, k = i % K, place = cache_row(m, t, l, b, k) + t.stored[b] * D;
        float *key = &qkv[(b * N + H + k) * D], *value = key + K * D;
        prepare_head(key, layer.key_norm, m, row(t.cosines, b, half), row(t.sines, b, half));
        std::copy(key, key + D, t.keys + place);
        std::copy(value, value + D, t.values + place);
      });
      team.wait();
      team.share(B * H, 1, [&](int64_t i) {
        int64_t b = i / H, h = i % H, S = t.stored[b] + 1, visible = m.window ? std::min(m.window, S) : S;
        int64_t first = cache_row(m, t, l, b, h / (H / K)) + (S - visible) * D;
        float* query = &qkv[(b * N + h) * D];
        prepare_head(query, layer.query_norm, m, row(t.cosines, b, half), row(t.sines, b, half));
        attend(query, t.keys + first, t.values + first, visible, D, m.scale, row(t.bias, h, t.bias_length),
               scores.data(), &heads[b * HD32 + h * D]);
      });
      team.wait();
      product(team, layer.output, B, heads.data(), HD32, t.x, C, true);
      team.wait();
      normalise_all(t.x, B, layer.norm_2, m, x.data(), C32);
      product(team, layer.gate, B, x.data(), C32, gate.data(), F, false);
      product(team, layer.up, B, x.data(), C32, hidden.data(), F32, false);
      team.wait();
      team.share(B * F, 1, [&](int64_t i) {
        float& up = hidden[i / F * F32 + i % F];
        up = activate(gate[i], up, m.feedforward);
      });
      team.wait();
      product(team, layer.down, B, hidden.data(), F32, t.x, C, true);
      team.wait();
    }
    normalise_all(t.x, B, m.norm, m, x.data(), C32);
    product(team, m.head, B, x.data(), C32, t.logits, m.head.rows, false);
  }
}

// One product by itself, y[B, N] = x[B, stride] W^T + bias: for tests, and to measure it.
extern "C" void multiply(const Matrix* matrix, int64_t B, const float* x, int64_t stride, float* y, int threads) {
  Team team;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    team.size = omp_get_num_threads();
    product(team, *matrix, B, x, stride, y, matrix->rows, false);
  }
}
