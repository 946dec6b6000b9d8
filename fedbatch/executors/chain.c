/* Clients of a perceptron, Linear (ReLU Linear)*, with cross-entropy, one client after the other.
 *
 * What one client needs stays in the processor's cache. REAL is float or double, and GEMM the library's product of
 * matrices for it (BLAS: column-major, all arguments by address). Matrices here are row-major. Parameters lie one after
 * the other: weight (out, in) and bias (out) of each layer. Returns 0; 1 without memory; 2 for a position or label that
 * is out of range.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

/* Sizes lie in 64 bits: where a library reads 32 of them, the order of bytes on our machines gives it the same. */
typedef int64_t size;
typedef void (*gemm_t)(const char *, const char *, const size *, const size *, const size *, const REAL *, const REAL *,
                       const size *, const REAL *, const size *, const REAL *, REAL *, const size *);

typedef struct {
    gemm_t gemm;
    int layers;            /* number of Linear layers */
    const int *sizes;      /* layers + 1 widths, from input to classes */
    const REAL *x;         /* (examples, sizes[0]) */
    const int64_t *y;      /* (examples) */
    int64_t examples;
} net_t;

typedef struct {           /* for n examples: values[l] (n, sizes[l]) and deltas[l], gradients at the output of l */
    REAL **values, **deltas, *block;
} work_t;

/* Numbers at an address that is always as round: products may round by where their factors lie */
static REAL *room_for(int64_t count) { return aligned_alloc(64, (count * sizeof(REAL) / 64 + 1) * 64); }

static int64_t parameters(const net_t *net) {
    int64_t count = 0;
    for (int l = 0; l < net->layers; l++) count += (int64_t)net->sizes[l + 1] * (net->sizes[l] + 1);
    return count;
}

static int allocate(const net_t *net, int64_t n, work_t *work) {
    int64_t total = 0;
    for (int l = 0; l <= net->layers; l++) total += 2 * n * net->sizes[l];
    work->values = malloc(2 * (net->layers + 1) * sizeof(REAL *));
    work->block = room_for(total);
    if (!work->values || !work->block) return 1;
    work->deltas = work->values + net->layers + 1;
    REAL *next = work->block;
    for (int l = 0; l <= net->layers; l++) {
        work->values[l] = next, next += n * net->sizes[l];
        work->deltas[l] = next, next += n * net->sizes[l];
    }
    return 0;
}

static void release(work_t *work) { free(work->values), free(work->block); }

/* c (m, n) = alpha op(a) op(b) + beta c, of op(a) (m, k) and op(b) (k, n) */
static void product(const net_t *net, char op_a, char op_b, size m, size n, size k, REAL alpha, const REAL *a, size lda,
                    const REAL *b, size ldb, REAL beta, REAL *c) {
    net->gemm(&op_b, &op_a, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &n);
}

static int gather(const net_t *net, const int64_t *positions, int64_t n, REAL *into) {
    int64_t width = net->sizes[0];
    for (int64_t i = 0; i < n; i++) {
        if (positions[i] < 0 || positions[i] >= net->examples) return 2;
        if (net->y[positions[i]] < 0 || net->y[positions[i]] >= net->sizes[net->layers]) return 2;
        memcpy(into + i * width, net->x + positions[i] * width, width * sizeof(REAL));
    }
    return 0;
}

static void forward(const net_t *net, const REAL *params, int64_t n, work_t *work) {
    for (int l = 0; l < net->layers; l++) {
        int in = net->sizes[l], out = net->sizes[l + 1];
        const REAL *weight = params, *bias = params + (int64_t)out * in;
        REAL *value = work->values[l + 1];
        for (int64_t i = 0; i < n; i++) memcpy(value + i * out, bias, out * sizeof(REAL));
        product(net, 'N', 'T', n, out, in, 1, work->values[l], in, weight, in, 1, value);
        if (l + 1 < net->layers)
            for (int64_t j = 0; j < n * out; j++)
                value[j] = value[j] > 0 || value[j] != value[j] ? value[j] : 0;
        params = bias + out;
    }
}

/* Gradient of share * sum of losses at the logits (n, classes); the sum of losses */
static double loss(const net_t *net, const int64_t *positions, int64_t n, REAL share, const REAL *logit, REAL *delta) {
    int classes = net->sizes[net->layers];
    double total = 0;
    for (int64_t i = 0; i < n; i++, logit += classes, delta += classes) {
        REAL most = logit[0], sum = 0;
        for (int j = 1; j < classes; j++) most = logit[j] > most ? logit[j] : most;
        for (int j = 0; j < classes; j++) delta[j] = exp(logit[j] - most), sum += delta[j];
        int64_t label = net->y[positions[i]];
        total += log(sum) - (logit[label] - most);
        for (int j = 0; j < classes; j++) delta[j] *= share / sum;
        delta[label] -= share;
    }
    return total;
}

/* deltas[l] from deltas[l + 1] (n, sizes[l + 1]), through the weight of layer l and the rectifier before it */
static void back(const net_t *net, int l, const REAL *weight, int64_t n, work_t *work) {
    int in = net->sizes[l], out = net->sizes[l + 1];
    product(net, 'N', 'N', n, in, out, 1, work->deltas[l + 1], out, weight, in, 0, work->deltas[l]);
    for (int64_t j = 0; j < n * in; j++) work->deltas[l][j] = work->values[l][j] > 0 ? work->deltas[l][j] : 0;
}

/* total += weight * (start - end), of n numbers; the squared length of start - end */
static double add_change(const REAL *start, const REAL *end, int64_t n, double weight, double *total) {
    double length = 0;
    for (int64_t from = 0; from < n; from += 4096) {
        REAL part = 0;
        int64_t to = from + 4096 < n ? from + 4096 : n;
#pragma omp simd reduction(+ : part)
        for (int64_t j = from; j < to; j++) {
            REAL change = start[j] - end[j];
            part += change * change;
            total[j] += weight * change;
        }
        length += part;
    }
    return length;
}

/* One step of SGD on n examples: params -= lr (gradient + proximal (params - start)); the sum of losses */
static double sgd_step(const net_t *net, const int64_t *positions, int64_t n, REAL lr, REAL proximal, const REAL *start,
                       REAL *params, work_t *work) {
    forward(net, params, n, work);
    double total = loss(net, positions, n, (REAL)1 / n, work->values[net->layers], work->deltas[net->layers]);
    int64_t at = parameters(net);
    for (int l = net->layers - 1; l >= 0; l--) {
        int in = net->sizes[l], out = net->sizes[l + 1];
        at -= (int64_t)out * (in + 1);
        REAL *weight = params + at, *bias = weight + (int64_t)out * in;
        if (l) back(net, l, weight, n, work);
        if (proximal > 0)
            for (int64_t j = 0; j < (int64_t)out * (in + 1); j++)
                weight[j] -= lr * proximal * (weight[j] - start[at + j]);
        product(net, 'T', 'N', out, in, n, -lr, work->deltas[l + 1], out, work->values[l], in, 1, weight);
        for (int64_t i = 0; i < n; i++)
            for (int j = 0; j < out; j++) bias[j] -= lr * work->deltas[l + 1][i * out + j];
    }
    return total;
}

/* Local SGD of (clients) with (steps) batches of at most (width) examples each.
 * Out: total (d), weighted sum of start minus end; squares and losses (clients). */
int local_sgd(gemm_t gemm, int layers, const int *sizes, const REAL *x, const int64_t *y, int64_t examples,
              const REAL *start, int64_t clients, int64_t steps, int64_t width, const int64_t *positions,
              const int64_t *counts, const double *weights, double lr, double proximal, double *total, double *squares,
              double *losses) {
    net_t net = {gemm, layers, sizes, x, y, examples};
    work_t work = {0};
    int64_t count = parameters(&net);
    REAL *params = room_for(count);
    int failed = allocate(&net, width, &work) || !params;
    for (int64_t k = 0; k < clients && !failed; k++) {
        double sum = 0, seen = 0;
        memcpy(params, start, count * sizeof(REAL));
        for (int64_t s = k * steps; s < (k + 1) * steps && !failed; s++) {
            if (!counts[s]) continue;
            failed = gather(&net, positions + s * width, counts[s], work.values[0]);
            if (failed) break;
            sum += sgd_step(&net, positions + s * width, counts[s], lr, proximal, start, params, &work);
            seen += counts[s];
        }
        squares[k] = add_change(start, params, count, weights[k], total), losses[k] = sum / seen;
    }
    release(&work), free(params);
    return failed;
}

/* Squared length of one client's gradient of a layer, by inner products of its n examples: it is not formed */
static double square_by_pairs(const net_t *net, int l, const REAL *value, const REAL *delta, int64_t n, REAL *pairs) {
    REAL *a = pairs, *g = pairs + n * n;
    double length = 0;
    product(net, 'N', 'T', n, n, net->sizes[l], 1, value, net->sizes[l], value, net->sizes[l], 0, a);
    product(net, 'N', 'T', n, n, net->sizes[l + 1], 1, delta, net->sizes[l + 1], delta, net->sizes[l + 1], 0, g);
    for (int64_t j = 0; j < n * n; j++) length += (double)(a[j] + 1) * g[j]; /* 1 for the bias */
    return length;
}

/* total += weight * gradient of a layer, from n inputs and gradients at outputs; the squared length of the gradient */
static double add_gradient(const net_t *net, int l, const REAL *value, const REAL *delta, int64_t n, double weight,
                           REAL *own, double *total) {
    int64_t in = net->sizes[l], out = net->sizes[l + 1];
    double length = 0;
    product(net, 'T', 'N', out, in, n, 1, delta, out, value, in, 0, own);
    for (int64_t from = 0; from < out * in; from += 4096) {
        REAL part = 0;
        int64_t to = from + 4096 < out * in ? from + 4096 : out * in;
#pragma omp simd reduction(+ : part)
        for (int64_t j = from; j < to; j++) part += own[j] * own[j], total[j] += weight * own[j];
        length += part;
    }
    for (int64_t j = 0; j < out; j++) {
        double bias = 0;
        for (int64_t i = 0; i < n; i++) bias += delta[i * out + j];
        length += bias * bias, total[out * in + j] += weight * bias;
    }
    return length;
}

/* One gradient of (clients), on batches of at most (width) examples, in chunks of about (most) examples.
 * Out: total (d), weighted sum of gradients; squares and losses (clients). */
int fedsgd(gemm_t gemm, int layers, const int *sizes, const REAL *x, const int64_t *y, int64_t examples,
           const REAL *params, int64_t clients, int64_t width, int64_t most, const int64_t *positions,
           const int64_t *counts, const double *weights, double *total, double *squares, double *losses) {
    net_t net = {gemm, layers, sizes, x, y, examples};
    work_t work = {0};
    int64_t room = most > width ? most : width, own = 2 * width * width, count = parameters(&net);
    for (int l = 0; l < layers; l++)
        if ((int64_t)sizes[l] * sizes[l + 1] > own) own = (int64_t)sizes[l] * sizes[l + 1];
    REAL *scratch = room_for(own);
    int64_t *flat = malloc(room * sizeof(int64_t));
    int failed = allocate(&net, room, &work) || !scratch || !flat;
    for (int64_t first = 0, next; first < clients && !failed; first = next) {
        int64_t n = 0;
        for (next = first; next < clients && (next == first || n + counts[next] <= room); next++) {
            memcpy(flat + n, positions + next * width, counts[next] * sizeof(int64_t));
            n += counts[next];
        }
        failed = gather(&net, flat, n, work.values[0]);
        if (failed) break;
        forward(&net, params, n, &work);
        for (int64_t k = first, i = 0; k < next; i += counts[k++]) {
            REAL *logit = work.values[layers] + i * sizes[layers], *delta = work.deltas[layers] + i * sizes[layers];
            losses[k] = loss(&net, flat + i, counts[k], (REAL)1 / counts[k], logit, delta) / counts[k];
            squares[k] = 0;
        }
        int64_t at = count;
        for (int l = layers - 1; l >= 0; l--) {
            int in = sizes[l], out = sizes[l + 1];
            at -= (int64_t)out * (in + 1);
            if (l) back(&net, l, params + at, n, &work);
            int is_formed = width * (in + out) >= (int64_t)in * out;
            REAL *value = work.values[l], *delta = work.deltas[l + 1];
            for (int64_t k = first; k < next; value += counts[k] * in, delta += counts[k++] * out) {
                if (is_formed) {
                    squares[k] += add_gradient(&net, l, value, delta, counts[k], weights[k], scratch, total + at);
                    continue;
                }
                squares[k] += square_by_pairs(&net, l, value, delta, counts[k], scratch);
                for (int64_t j = 0; j < counts[k] * out; j++) delta[j] *= weights[k];
            }
            if (!is_formed)
                add_gradient(&net, l, work.values[l], work.deltas[l + 1], n, 1, scratch, total + at);
        }
    }
    release(&work), free(scratch), free(flat);
    return failed;
}
