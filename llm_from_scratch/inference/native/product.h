// y = W x for weights of 32, 8 or 4 bits, and one or a few vectors x.
//
// With few vectors the time goes into reading W from memory. So each row is read once, in order, and
// multiplied with all vectors while it is at hand; fewer bits a weight are fewer bytes to wait for.
// A weight is widened to float32 in a register: the result is that of the definition, but for the
// order of the additions.
//
// Legend: B vectors, N rows, C columns. Vectors stand in rows of `stride` numbers, a multiple of 32,
// with zeros behind their end.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <vector>
#if defined(__AVX2__) && defined(__F16C__)
#include <immintrin.h>
#endif

typedef float Lanes __attribute__((vector_size(32)));  // eight numbers side by side

static inline Lanes load(const float* p) {
  Lanes lanes;
  memcpy(&lanes, p, sizeof lanes);
  return lanes;
}

static inline float total(Lanes lanes) {
  float sum = 0;
  for (int i = 0; i < 8; i++) sum += lanes[i];
  return sum;
}

#if defined(__AVX2__) && defined(__F16C__)
static inline Lanes widen(__m128i bytes) { return (Lanes)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
static inline Lanes load(const int8_t* p) { return widen(_mm_loadl_epi64((const __m128i*)p)); }
static inline void load_nibbles(const uint8_t* p, Lanes q[4]) {
  __m128i bytes = _mm_loadu_si128((const __m128i*)p), low = _mm_set1_epi8(15);
  __m128i first = _mm_and_si128(bytes, low), second = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
  q[0] = widen(first), q[1] = widen(_mm_srli_si128(first, 8));
  q[2] = widen(second), q[3] = widen(_mm_srli_si128(second, 8));
}
static inline float from_half(uint16_t half) { return _cvtsh_ss(half); }
#else  // the same for any processor
static inline Lanes load(const int8_t* p) {
  Lanes lanes;
  for (int i = 0; i < 8; i++) lanes[i] = p[i];
  return lanes;
}
static inline void load_nibbles(const uint8_t* p, Lanes q[4]) {
  for (int i = 0; i < 32; i++) q[i / 8][i % 8] = i < 16 ? p[i] & 15 : p[i - 16] >> 4;
}
static inline float from_half(uint16_t half) {
  uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  float size = exponent ? ldexpf(1024 + fraction, (int)exponent - 25) : ldexpf(fraction, -24);
  return half & 0x8000 ? -size : size;
}
#endif

// The formats of `inference.weight_only`. A row gives 32 of its columns at a time.
enum { FLOAT32 = 0, INT8 = 8, INT4 = 4 };

struct Matrix {
  const void* weights;  // float32 [N, C], int8 [N, C], or two 4-bit numbers a byte [N, groups * group / 2]
  const void* scale;    // int8: float32 [N]; int4: float16 [N, groups]
  const void* minimum;  // int4: float16 [N, groups]
  const float* bias;    // [N] or null
  int64_t rows, columns, format, group;
};

template <class T>
struct PlainRow {
  const T* row;
  float factor;
  inline void read(int64_t c, Lanes w[4]) const {
    for (int j = 0; j < 4; j++) w[j] = load(row + c + 8 * j);
    __builtin_prefetch((const char*)(row + c) + 2048);  // ahead of the processor's own guess
  }
  inline float at(int64_t c) const { return row[c]; }
};

struct NibbleRow {
  const uint8_t* row;
  const uint16_t *scale, *minimum;
  int64_t group;
  static constexpr float factor = 1;
  inline void read(int64_t c, Lanes w[4]) const {
    load_nibbles(row + c / 2, w);
    __builtin_prefetch(row + c / 2 + 2048);
    float scale_g = from_half(scale[c / group]), minimum_g = from_half(minimum[c / group]);
    for (int j = 0; j < 4; j++) w[j] = w[j] * scale_g + minimum_g;
  }
  inline float at(int64_t) const { return 0; }  // never asked for: groups fill whole steps of 32
};

// y[b] += W x[b] for one row of W and B vectors: each weight is read from memory once, for all of them.
template <int B, class Row>
static inline void dot_row(const Row& row, int64_t columns, const float* x, int64_t stride, float* y,
                           int64_t y_stride, float bias, bool add) {
  constexpr int U = B == 1 ? 4 : B == 2 ? 2 : 1;  // independent sums, so that additions need not wait
  Lanes sums[B][U] = {};
  int64_t c = 0;
  for (; c + 32 <= columns; c += 32) {
    Lanes w[4];
    row.read(c, w);
    for (int j = 0; j < 4; j++)
      for (int b = 0; b < B; b++) sums[b][j % U] += w[j] * load(x + b * stride + c + 8 * j);
  }
  for (int b = 0; b < B; b++) {
    float sum = 0;
    for (int u = 0; u < U; u++) sum += total(sums[b][u]);
    for (int64_t rest = c; rest < columns; rest++) sum += row.at(rest) * x[b * stride + rest];
    sum = sum * row.factor + bias;
    y[b * y_stride] = add ? y[b * y_stride] + sum : sum;
  }
}

template <class Row>
static inline void dot_rows(const Row& row, int64_t columns, int64_t B, const float* x, int64_t stride, float* y,
                            int64_t y_stride, float bias, bool add) {
  for (; B >= 8; B -= 8, x += 8 * stride, y += 8 * y_stride)
    dot_row<8>(row, columns, x, stride, y, y_stride, bias, add);
  for (; B >= 4; B -= 4, x += 4 * stride, y += 4 * y_stride)
    dot_row<4>(row, columns, x, stride, y, y_stride, bias, add);
  for (; B >= 2; B -= 2, x += 2 * stride, y += 2 * y_stride)
    dot_row<2>(row, columns, x, stride, y, y_stride, bias, add);
  if (B) dot_row<1>(row, columns, x, stride, y, y_stride, bias, add);
}

// y = W x + bias, or y += W x + bias. The threads share the rows, and do not wait at the end.
static void product(const Matrix& m, int64_t B, const float* x, int64_t stride, float* y, int64_t y_stride,
                    bool add) {
  const int64_t N = m.rows, C = m.columns, groups = m.format == INT4 ? (C + m.group - 1) / m.group : 0;
#pragma omp for schedule(static) nowait
  for (int64_t n = 0; n < N; n++) {
    float bias = m.bias ? m.bias[n] : 0;
    if (m.format == FLOAT32) {
      PlainRow<float> row{(const float*)m.weights + n * C, 1};
      dot_rows(row, C, B, x, stride, y + n, y_stride, bias, add);
    } else if (m.format == INT8) {
      PlainRow<int8_t> row{(const int8_t*)m.weights + n * C, ((const float*)m.scale)[n]};
      dot_rows(row, C, B, x, stride, y + n, y_stride, bias, add);
    } else {
      NibbleRow row{(const uint8_t*)m.weights + n * groups * m.group / 2, (const uint16_t*)m.scale + n * groups,
                    (const uint16_t*)m.minimum + n * groups, m.group};
      dot_rows(row, (C + 31) / 32 * 32, B, x, stride, y + n, y_stride, bias, add);
    }
  }
}
