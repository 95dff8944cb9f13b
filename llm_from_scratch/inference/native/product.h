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
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <type_traits>
#include <vector>
#if defined(__AVX2__) && defined(__F16C__)
#include <immintrin.h>
#endif

// The threads that work together. They share out a range of rows or heads, and meet in `wait`: there a
// thread first looks again and again, which is quick when the others are about to arrive, then sleeps, which
// leaves the processor to them where other programs want it too.
struct Team {
  int size = 1;
  std::atomic<int> arrived{0}, round{0};

  void wait() {
    int before = round;
    if (arrived.fetch_add(1) + 1 == size) {
      arrived = 0;
      round.fetch_add(1);
      round.notify_all();
      return;
    }
    for (int look = 0; look < 100000; look++)  // some 0.1 ms
      if (round != before) return;
    while (round == before) round.wait(before);
  }

  template <class Work>
  void share(int64_t count, int64_t step, Work work) const {  // work(i) for i = 0, step, 2 step .. of my part
    int64_t steps = (count + step - 1) / step, me = omp_get_thread_num();
    for (int64_t i = steps * me / size; i < steps * (me + 1) / size; i++) work(i * step);
  }
};

// Numbers side by side: as many as the processor's widest register holds, 8 or 16.
#if defined(__AVX512F__) && defined(__AVX512BW__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int PARTS = 16 / LANES;  // registers for 16 columns
typedef float Lanes __attribute__((vector_size(4 * LANES)));

static inline Lanes load(const float* p) {
  Lanes lanes;
  memcpy(&lanes, p, sizeof lanes);
  return lanes;
}

static inline float total(Lanes l) {
  typedef float Half __attribute__((vector_size(16)));
  Half half = {};
  for (int i = 0; i < LANES; i += 4) half += Half{l[i], l[i + 1], l[i + 2], l[i + 3]};
  return (half[0] + half[2]) + (half[1] + half[3]);
}

#if defined(__AVX512F__) && defined(__AVX512BW__)
static inline Lanes widen(__m128i bytes) { return (Lanes)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
static inline Lanes load(const int8_t* p) { return widen(_mm_loadu_si128((const __m128i*)p)); }
#elif defined(__AVX2__) && defined(__F16C__)
static inline Lanes widen(__m128i bytes) { return (Lanes)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
static inline Lanes load(const int8_t* p) { return widen(_mm_loadl_epi64((const __m128i*)p)); }
#else  // the same for any processor
static inline Lanes load(const int8_t* p) {
  Lanes lanes;
  for (int i = 0; i < LANES; i++) lanes[i] = p[i];
  return lanes;
}
#endif

#if defined(__AVX2__) && defined(__F16C__)
static inline void load_nibbles(const uint8_t* p, bool upper, Lanes q[PARTS]) {
  __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  __m128i nibbles = _mm_and_si128(upper ? _mm_srli_epi16(bytes, 4) : bytes, _mm_set1_epi8(15));
  q[0] = widen(nibbles);
  if constexpr (PARTS == 2) q[PARTS - 1] = widen(_mm_srli_si128(nibbles, 8));
}
static inline float from_half(uint16_t half) { return _cvtsh_ss(half); }
#else
static inline void load_nibbles(const uint8_t* p, bool upper, Lanes q[PARTS]) {
  for (int i = 0; i < 16; i++) q[i / LANES][i % LANES] = upper ? p[i] >> 4 : p[i] & 15;
}
static inline float from_half(uint16_t half) {
  uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  float size = exponent ? ldexpf(1024 + fraction, (int)exponent - 25) : ldexpf(fraction, -24);
  return half & 0x8000 ? -size : size;
}
#endif

// The formats of `inference.weight_only`. A row gives 16 of its columns at a time.
enum { FLOAT32 = 0, INT8 = 8, INT4 = 4 };

struct Matrix {
  const void* weights;  // float32 [N, C], int8 [N, C], or two 4-bit numbers a byte [N, groups * group / 2]
  const void* scale;    // int8: float32 [N]; int4: float16 [N, groups]
  const void* minimum;  // int4: float16 [N, groups]
  const float* bias;    // [N] or null
  int64_t rows, columns, format, group;  // group: columns, a power of 2
};

// With few vectors the memory is the limit, and it gives more when several rows are read side by side, each a
// stream of its own, and when bytes are asked for earlier than the processor would guess. How many rows
// (STREAMS) and how early (AHEAD, in bytes) was tried out: rows of one byte a column are short, so there the
// bytes that are asked for lie in the rows that come next.
template <class T>
struct PlainRow {
  static constexpr int STREAMS = sizeof(T) == 4 ? 8 : 4, AHEAD = sizeof(T) == 4 ? 512 : 2304;
  const T* row;
  float factor;
  inline void read(int64_t c, int half, Lanes w[PARTS]) const {  // columns c + 16 half .. c + 16 half + 15
    const T* part = row + c + 16 * half;
    for (int j = 0; j < PARTS; j++) w[j] = load(part + LANES * j);
    __builtin_prefetch((const char*)part + AHEAD);
  }
  inline float at(int64_t c) const { return row[c]; }
};

struct NibbleRow {
  static constexpr int STREAMS = 4, AHEAD = 2304;
  const uint8_t* row;
  const uint16_t *scale, *minimum;
  int shift;  // group = 1 << shift
  static constexpr float factor = 1;
  inline void read(int64_t c, int half, Lanes w[PARTS]) const {
    const uint8_t* bytes = row + c / 2;
    load_nibbles(bytes, half, w);
    __builtin_prefetch(bytes + AHEAD);
    float scale_g = from_half(scale[c >> shift]), minimum_g = from_half(minimum[c >> shift]);
    for (int j = 0; j < PARTS; j++) w[j] = w[j] * scale_g + minimum_g;
  }
  inline float at(int64_t) const { return 0; }  // never asked for: groups fill whole steps of 32
};

// Y = X W^T for R rows of W and B vectors. Each weight is read from memory once, and is widened once for
// all B vectors; each entry of a vector, once it is in a register, meets all R rows.
template <int R, int B, class Row>
static inline void tile(const Row rows[R], int64_t columns, const float* x, int64_t stride, float y[R][B]) {
  constexpr int U = R * B == 1 ? 2 : 1;  // independent sums, so that an addition need not wait for the last
  Lanes sums[R][B][U] = {};
  int64_t c = 0;
  for (; c + 32 <= columns; c += 32)
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      Lanes w[R][PARTS];
      for (int r = 0; r < R; r++) rows[r].read(c, half, w[r]);
      for (int j = 0; j < PARTS; j++)
        for (int b = 0; b < B; b++) {
          Lanes entries = load(x + b * stride + c + 16 * half + LANES * j);
          for (int r = 0; r < R; r++) sums[r][b][half % U] += w[r][j] * entries;
        }
    }
  for (int r = 0; r < R; r++)
    for (int b = 0; b < B; b++) {
      float sum = 0;
      for (int u = 0; u < U; u++) sum += total(sums[r][b][u]);
      for (int64_t rest = c; rest < columns; rest++) sum += rows[r].at(rest) * x[b * stride + rest];
      y[r][b] = sum * rows[r].factor;
    }
}

// Where the results of a product go: y[b, n] = sum + bias[n], or y[b, n] += sum + bias[n].
struct Output {
  float* y;
  int64_t stride;
  const float* bias;  // null for none
  bool add;
  template <int R, int B>
  inline void put(int64_t n, int64_t b0, const float sums[R][B]) const {
    for (int r = 0; r < R; r++)
      for (int b = 0; b < B; b++) {
        float* place = y + (b0 + b) * stride + n + r;
        *place = (add ? *place : 0) + sums[r][b] + (bias ? bias[n + r] : 0);
      }
  }
};

constexpr int SIDE = LANES == 16 ? 8 : 4;  // vectors at once: their sums must fit into the registers

template <int R, class Row>
static inline void multiply_rows(const Row rows[R], int64_t n, int64_t columns, int64_t B, const float* x,
                                 int64_t stride, const Output& out) {
  int64_t b = 0;
  auto at_once = [&]<int W>(std::integral_constant<int, W>) {
    for (; b + W <= B; b += W) {
      float sums[R][W];
      tile<R, W>(rows, columns, x + b * stride, stride, sums);
      out.put<R, W>(n, b, sums);
    }
  };
  if constexpr (R <= 2) {
    at_once(std::integral_constant<int, SIDE>{});
    at_once(std::integral_constant<int, 4>{});
  }
  at_once(std::integral_constant<int, 1>{});
}

template <class Row, class RowAt>
static void multiply_all(const Team& team, RowAt row_at, int64_t N, int64_t columns, int64_t B, const float* x,
                         int64_t stride, const Output& out) {
  auto from = [&]<int R>(int64_t n, std::integral_constant<int, R>) {
    Row rows[R];
    for (int r = 0; r < R; r++) rows[r] = row_at(n + r);
    multiply_rows<R>(rows, n, columns, B, x, stride, out);
  };
  constexpr int STREAMS = Row::STREAMS;
  const int64_t step = B < 4 ? STREAMS : 2;  // with more vectors the registers have room for the sums of two rows
  team.share(N, step, [&](int64_t n) {
    const int64_t end = std::min(N, n + step);
    if (step == STREAMS && end - n == STREAMS) return from(n, std::integral_constant<int, STREAMS>{});
    for (; n + 2 <= end; n += 2) from(n, std::integral_constant<int, 2>{});
    if (n < end) from(n, std::integral_constant<int, 1>{});
  });
}

// The rows of this thread; it does not wait for the others.
static void product(const Team& team, const Matrix& m, int64_t B, const float* x, int64_t stride, float* y, int64_t y_stride,
                    bool add) {
  const int64_t N = m.rows, C = m.columns;
  const Output out{y, y_stride, m.bias, add};
  if (m.format == FLOAT32) {
    auto row_at = [&](int64_t n) { return PlainRow<float>{(const float*)m.weights + n * C, 1}; };
    multiply_all<PlainRow<float>>(team, row_at, N, C, B, x, stride, out);
  } else if (m.format == INT8) {
    auto row_at = [&](int64_t n) {
      return PlainRow<int8_t>{(const int8_t*)m.weights + n * C, ((const float*)m.scale)[n]};
    };
    multiply_all<PlainRow<int8_t>>(team, row_at, N, C, B, x, stride, out);
  } else {
    const int64_t groups = (C + m.group - 1) / m.group;
    const int shift = __builtin_ctzll(m.group);
    auto row_at = [&](int64_t n) {
      return NibbleRow{(const uint8_t*)m.weights + n * groups * m.group / 2, (const uint16_t*)m.scale + n * groups,
                       (const uint16_t*)m.minimum + n * groups, shift};
    };
    multiply_all<NibbleRow>(team, row_at, N, (C + 31) / 32 * 32, B, x, stride, out);
  }
}
