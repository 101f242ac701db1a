/* Registration, argument checking, slabs, the descriptor table, and the end of an environment. */
#include "internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- slabs ---- */

int32_t slab_get(struct addon *a, int32_t id, struct slab *out) {
  napi_value value;
  void *data = NULL;
  size_t size = 0;
  if (id < 0 || id >= MAX_SLABS || a->slabs[id] == NULL) return -EBADF;
  if (napi_get_reference_value(a->env, a->slabs[id], &value) != napi_ok || value == NULL) return -EBADF;
  if (napi_get_arraybuffer_info(a->env, value, &data, &size) != napi_ok) return -EBADF;
  out->base = data;
  out->size = data == NULL ? 0 : size;
  return 0;
}

int32_t slab_words(const struct slab *s, int32_t off, int64_t words, int32_t **out) {
  if (!slab_has(s, off, words * 4)) return -EFAULT;
  if (((uintptr_t)s->base + (uint32_t)off) & 3) return -EINVAL;
  *out = (int32_t *)(void *)(s->base + off);
  return 0;
}

int32_t slab_range(const struct slab *s, int32_t off, int32_t limit) {
  return slab_has(s, off, (int64_t)limit - off) ? 0 : -EFAULT;
}

int32_t slab_name(const struct slab *s, int32_t off, char name[16]) {
  if (!slab_has(s, off, 16)) return -EFAULT;
  memcpy(name, s->base + off, 16);
  return memchr(name, 0, 16) == NULL ? -EINVAL : 0;
}

static int32_t fn_unregister_slab(struct addon *a, const int32_t *v) {
  int32_t id = v[0];
  if (id < 0 || id >= MAX_SLABS || a->slabs[id] == NULL) return -EBADF;
  napi_delete_reference(a->env, a->slabs[id]);
  a->slabs[id] = NULL;
  return 0;
}

static int32_t register_slab(struct addon *a, napi_value value) {
  bool is_buffer = false;
  int32_t id = 0;
  if (napi_is_arraybuffer(a->env, value, &is_buffer) != napi_ok || !is_buffer) return -EINVAL;
  while (id < MAX_SLABS && a->slabs[id] != NULL) id++;
  if (id == MAX_SLABS) return -ENOSPC;
  if (napi_create_reference(a->env, value, 1, &a->slabs[id]) != napi_ok) {
    a->slabs[id] = NULL;
    return -EINVAL;
  }
  return id;
}

/* ---- descriptors ---- */

int32_t fd_own(struct addon *a, int32_t fd) {
  if (fd >= a->fd_cap) {
    int32_t cap = a->fd_cap == 0 ? 256 : a->fd_cap;
    uint8_t *grown;
    while (cap <= fd) {
      if (cap > INT32_MAX / 2) {
        close(fd);
        return -EMFILE;
      }
      cap *= 2;
    }
    grown = realloc(a->fds, (size_t)cap);
    if (grown == NULL) {
      close(fd);
      return -ENOMEM;
    }
    memset(grown + a->fd_cap, 0, (size_t)(cap - a->fd_cap));
    a->fds = grown;
    a->fd_cap = cap;
  }
  a->fds[fd] = FD_OWNED;
  return fd;
}

/* Drop what hangs on the descriptor, without closing it. */
static void fd_forget(struct addon *a, int32_t fd) {
  if (a->fds[fd] & FD_UDP_KEPT) udp_forget(a, fd);
  a->fds[fd] = 0;
}

int32_t fd_close(struct addon *a, int32_t fd) {
  if (!fd_owned(a, fd)) return -EBADF;
  fd_forget(a, fd);
  /* Linux has released the descriptor even when close() reports EINTR or EIO. */
  return close(fd) == 0 || errno == EINTR ? 0 : -errno;
}

static int32_t fn_close(struct addon *a, const int32_t *v) { return fd_close(a, v[0]); }

static int32_t fn_adopt_fd(struct addon *a, const int32_t *v) {
  int32_t fd = v[0];
  int fd_flags, status;
  if (fd >= 0 && (fd <= 2 || poller_is_fd(a, fd))) return -EINVAL;
  if (fd_owned(a, fd)) return -EEXIST;
  fd_flags = fd < 0 ? -1 : fcntl(fd, F_GETFD);
  if (fd_flags < 0) return -EBADF;
  status = fcntl(fd, F_GETFL);
  if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) < 0) return -errno;
  if (fcntl(fd, F_SETFD, fd_flags | FD_CLOEXEC) < 0) return -errno;
  return fd_own(a, fd);
}

static int32_t fn_copy_fd(struct addon *a, const int32_t *v) {
  int32_t fd = v[0];
  if (fd >= 0 && (fd <= 2 || poller_is_fd(a, fd))) return -EINVAL;
  fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  return fd < 0 ? -errno : fd_own(a, fd);
}

static int32_t fn_release_fd(struct addon *a, const int32_t *v) {
  int32_t fd = v[0];
  if (!fd_owned(a, fd)) return -EBADF;
  if (poller_ready(a) == 0) (void)fn_poller_delete(a, &fd); /* ENOENT: was not in the set */
  fd_forget(a, fd);
  return fd;
}

/* ---- calls ---- */

static int32_t fn_abi(struct addon *a, const int32_t *v) {
  (void)a;
  (void)v;
  return ABI_VERSION;
}

struct function {
  const char *name;
  uint32_t args;
  int32_t (*call)(struct addon *a, const int32_t *v);
};

/* One exported function of one environment. */
struct bound {
  struct addon *addon;
  const struct function *function;
};

static const struct function FUNCTIONS[] = {
  {"abi", 0, fn_abi},
  {"unregisterSlab", 1, fn_unregister_slab},
  {"adoptFd", 1, fn_adopt_fd},
  {"copyFd", 1, fn_copy_fd},
  {"releaseFd", 1, fn_release_fd},
  {"close", 1, fn_close},
  {"tunOpen", 3, fn_tun_open},
  {"tunGetFeatures", 1, fn_tun_get_features},
  {"tunSetVnetHdrSize", 2, fn_tun_set_vnet_hdr_size},
  {"tunSetOffload", 2, fn_tun_set_offload},
  {"tunSetSendBuffer", 2, fn_tun_set_send_buffer},
  {"tunGetIff", 3, fn_tun_get_iff},
  {"tunSetPersist", 2, fn_tun_set_persist},
  {"tunRead", 7, fn_tun_read},
  {"tunWrite", 5, fn_tun_write},
  {"pollerClose", 0, fn_poller_close},
  {"pollerRef", 1, fn_poller_ref},
  {"pollerAdd", 4, fn_poller_add},
  {"pollerModify", 4, fn_poller_modify},
  {"pollerDelete", 1, fn_poller_delete},
  {"pollerWait", 4, fn_poller_wait},
  {"tcpConnect", 2, fn_tcp_connect},
  {"streamRead", 7, fn_stream_read},
  {"streamWrite", 4, fn_stream_write},
  {"socketShutdown", 2, fn_socket_shutdown},
  {"socketReset", 1, fn_socket_reset},
  {"socketError", 1, fn_socket_error},
  {"socketName", 4, fn_socket_name},
  {"setOption", 4, fn_set_option},
  {"getOption", 3, fn_get_option},
  {"udpOpen", 2, fn_udp_open},
  {"udpRead", 6, fn_udp_read},
  {"udpReadError", 3, fn_udp_read_error},
  {"udpWrite", 5, fn_udp_write},
  {"netlink", 4, fn_netlink},
};
#define FUNCTION_COUNT (sizeof FUNCTIONS / sizeof FUNCTIONS[0])

/* What instance data points to. */
struct instance {
  struct addon *addon;
  struct bound bound[FUNCTION_COUNT];
};

static napi_value result(napi_env env, int32_t value) {
  napi_value out = NULL;
  napi_create_int32(env, value, &out);
  return out;
}

/* Every argument must be a number that is exactly an int32. */
static int32_t int_arguments(napi_env env, const napi_value *values, uint32_t count, int32_t *out) {
  for (uint32_t i = 0; i < count; i++) {
    double d;
    if (napi_get_value_double(env, values[i], &d) != napi_ok) return -EINVAL;
    if (!(d >= INT32_MIN && d <= INT32_MAX)) return -EINVAL; /* NaN fails both */
    out[i] = (int32_t)d;
    if ((double)out[i] != d) return -EINVAL;
  }
  return 0;
}

static napi_value call_int(napi_env env, napi_callback_info info) {
  napi_value values[MAX_ARGS];
  int32_t v[MAX_ARGS] = {0};
  size_t count = MAX_ARGS;
  void *data = NULL;
  const struct bound *bound;
  int32_t r;
  if (napi_get_cb_info(env, info, &count, values, NULL, &data) != napi_ok) return result(env, -EINVAL);
  bound = data;
  if (count < bound->function->args) return result(env, -EINVAL);
  r = int_arguments(env, values, bound->function->args, v);
  if (r == 0) r = bound->function->call(bound->addon, v);
  return result(env, r);
}

static napi_value call_value(napi_env env, napi_callback_info info, int32_t (*call)(struct addon *, napi_value)) {
  napi_value value = NULL;
  size_t count = 1;
  void *data = NULL;
  if (napi_get_cb_info(env, info, &count, &value, NULL, &data) != napi_ok || count < 1) return result(env, -EINVAL);
  return result(env, call(data, value));
}

static napi_value call_register_slab(napi_env env, napi_callback_info info) {
  return call_value(env, info, register_slab);
}

static napi_value call_poller_open(napi_env env, napi_callback_info info) { return call_value(env, info, poller_open); }

/* ---- life of an environment ---- */

void addon_unref(struct addon *a) {
  if (--a->refs > 0) return;
  free(a->fds);
  free(a);
}

/* The environment ends: close everything, then wait for libuv to give back the poll handles. */
static void on_cleanup(napi_async_cleanup_hook_handle handle, void *arg) {
  struct addon *a = arg;
  poller_shut(a);
  for (int32_t fd = 0; fd < a->fd_cap; fd++) {
    if (a->fds[fd] != 0) (void)fd_close(a, fd);
  }
  for (int i = 0; i < MAX_SLABS; i++) {
    if (a->slabs[i] != NULL) napi_delete_reference(a->env, a->slabs[i]);
    a->slabs[i] = NULL;
  }
  udp_free(a);
  if (a->poll_handles > 0) {
    a->hook = handle;
  } else {
    napi_remove_async_cleanup_hook(handle);
  }
}

static void on_finalize(napi_env env, void *data, void *hint) {
  struct instance *instance = data;
  (void)env;
  (void)hint;
  addon_unref(instance->addon);
  free(instance);
}

static int define(napi_env env, napi_value exports, const char *name, napi_callback cb, void *data) {
  napi_value function;
  return napi_create_function(env, name, NAPI_AUTO_LENGTH, cb, data, &function) == napi_ok &&
         napi_set_named_property(env, exports, name, function) == napi_ok;
}

NAPI_MODULE_INIT() {
  struct addon *a = calloc(1, sizeof *a);
  struct instance *instance = calloc(1, sizeof *instance);
  int ok;
  if (a == NULL || instance == NULL || napi_set_instance_data(env, instance, on_finalize, NULL) != napi_ok) {
    free(a);
    free(instance);
    napi_throw_error(env, NULL, "No memory to load the native addon");
    return NULL;
  }
  a->env = env;
  a->refs = 1;
  instance->addon = a;
  ok = napi_add_async_cleanup_hook(env, on_cleanup, a, NULL) == napi_ok;
  ok = ok && define(env, exports, "registerSlab", call_register_slab, a);
  ok = ok && define(env, exports, "pollerOpen", call_poller_open, a);
  for (size_t i = 0; ok && i < FUNCTION_COUNT; i++) {
    instance->bound[i].addon = a;
    instance->bound[i].function = &FUNCTIONS[i];
    ok = define(env, exports, FUNCTIONS[i].name, call_int, &instance->bound[i]);
  }
  if (!ok) napi_throw_error(env, NULL, "Could not define the functions of the native addon");
  return exports;
}
