/*
 * One epoll set under one uv_poll handle: JavaScript is woken once, however many descriptors are ready, and fetches
 * the events with pollerWait(). uv.h is not part of the Node-API headers, so the few functions are declared here;
 * the handle's size comes from libuv itself.
 */
#include "internal.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

typedef struct uv_loop_s uv_loop_t;
typedef struct uv_handle_s uv_handle_t;
typedef struct uv_poll_s uv_poll_t;
#define UV_POLL 8
#define UV_READABLE 1
extern size_t uv_handle_size(int type);
extern int uv_poll_init(uv_loop_t *loop, uv_poll_t *handle, int fd);
extern int uv_poll_start(uv_poll_t *handle, int events, void (*cb)(uv_poll_t *handle, int status, int events));
extern int uv_poll_stop(uv_poll_t *handle);
extern void uv_close(uv_handle_t *handle, void (*cb)(uv_handle_t *handle));
extern void uv_ref(uv_handle_t *handle);
extern void uv_unref(uv_handle_t *handle);
extern void *uv_handle_get_data(const uv_handle_t *handle);
extern void uv_handle_set_data(uv_handle_t *handle, void *data);

#define EVENT_MASK (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDHUP | EPOLLONESHOT | EPOLLET)
#define MAX_WAIT_MS 1000

struct poller {
  struct addon *addon;
  uv_handle_t *handle;
  napi_ref callback;
  int epfd;
};

static void on_closed(uv_handle_t *handle) {
  struct poller *p = uv_handle_get_data(handle);
  struct addon *a = p->addon;
  close(p->epfd);
  free(p->handle);
  free(p);
  a->poll_handles--;
  if (a->poll_handles == 0 && a->hook != NULL) {
    napi_async_cleanup_hook_handle hook = a->hook;
    a->hook = NULL;
    napi_remove_async_cleanup_hook(hook);
  }
  addon_unref(a);
}

/* An exception of the callback takes the usual way to 'uncaughtException'. */
static void report_exception(napi_env env) {
  bool pending = false;
  napi_value error;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
}

/* The callback may close the poller: nothing of it is touched after the call. */
static void on_readable(uv_poll_t *handle, int status, int events) {
  struct poller *p = uv_handle_get_data((uv_handle_t *)handle);
  napi_env env = p->addon->env;
  napi_handle_scope scope;
  napi_value callback, global, ignored;
  (void)status;
  (void)events;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  if (napi_get_reference_value(env, p->callback, &callback) == napi_ok && callback != NULL &&
      napi_get_global(env, &global) == napi_ok &&
      napi_make_callback(env, NULL, global, callback, 0, NULL, &ignored) != napi_ok) {
    report_exception(env);
  }
  napi_close_handle_scope(env, scope);
}

int32_t poller_open(struct addon *a, napi_value callback) {
  napi_valuetype type;
  uv_loop_t *loop = NULL;
  struct poller *p;
  int r;
  if (napi_typeof(a->env, callback, &type) != napi_ok || type != napi_function) return -EINVAL;
  if (a->poller != NULL) return -EEXIST;
  if (napi_get_uv_event_loop(a->env, (struct uv_loop_s **)&loop) != napi_ok) return -ENOTSUP;
  p = calloc(1, sizeof *p);
  if (p == NULL) return -ENOMEM;
  p->addon = a;
  p->epfd = epoll_create1(EPOLL_CLOEXEC);
  if (p->epfd < 0) {
    r = -errno;
    free(p);
    return r;
  }
  p->handle = calloc(1, uv_handle_size(UV_POLL));
  r = p->handle == NULL ? -ENOMEM : uv_poll_init(loop, (uv_poll_t *)p->handle, p->epfd);
  if (r == 0 && napi_create_reference(a->env, callback, 1, &p->callback) != napi_ok) {
    /* The handle is known to libuv now and has to go the long way. */
    p->callback = NULL;
    r = -ENOMEM;
  } else if (r < 0) {
    close(p->epfd);
    free(p->handle);
    free(p);
    return r;
  }
  uv_handle_set_data(p->handle, p);
  a->poll_handles++;
  a->refs++;
  a->poller = p;
  if (r == 0) r = uv_poll_start((uv_poll_t *)p->handle, UV_READABLE, on_readable);
  if (r < 0) poller_shut(a);
  return r;
}

void poller_shut(struct addon *a) {
  struct poller *p = a->poller;
  if (p == NULL) return;
  a->poller = NULL;
  if (p->callback != NULL) napi_delete_reference(a->env, p->callback);
  p->callback = NULL;
  uv_poll_stop((uv_poll_t *)p->handle);
  uv_close(p->handle, on_closed);
}

int poller_is_fd(const struct addon *a, int32_t fd) { return a->poller != NULL && a->poller->epfd == fd; }

int32_t poller_ready(const struct addon *a) { return a->poller == NULL ? -ENXIO : 0; }

int32_t poller_ctl(struct addon *a, int op, int32_t fd, int32_t events, int32_t token, int32_t gen) {
  struct epoll_event event;
  if ((uint32_t)events & ~(uint32_t)EVENT_MASK) return -EINVAL;
  if (a->poller == NULL) return -ENXIO;
  event.events = (uint32_t)events;
  event.data.u64 = (uint64_t)(uint32_t)gen << 32 | (uint32_t)token;
  return epoll_ctl(a->poller->epfd, op, fd, &event) < 0 ? -errno : 0;
}

int32_t fn_poller_close(struct addon *a, const int32_t *v) {
  (void)v;
  if (a->poller == NULL) return -ENXIO;
  poller_shut(a);
  return 0;
}

int32_t fn_poller_ref(struct addon *a, const int32_t *v) {
  if (v[0] != 0 && v[0] != 1) return -EINVAL;
  if (a->poller == NULL) return -ENXIO;
  if (v[0]) {
    uv_ref(a->poller->handle);
  } else {
    uv_unref(a->poller->handle);
  }
  return 0;
}

int32_t fn_poller_add(struct addon *a, const int32_t *v) {
  if (!fd_owned(a, v[0])) return -EBADF;
  return poller_ctl(a, EPOLL_CTL_ADD, v[0], v[1], v[2], v[3]);
}

int32_t fn_poller_modify(struct addon *a, const int32_t *v) {
  if (!fd_owned(a, v[0])) return -EBADF;
  return poller_ctl(a, EPOLL_CTL_MOD, v[0], v[1], v[2], v[3]);
}

int32_t fn_poller_delete(struct addon *a, const int32_t *v) {
  if (!fd_owned(a, v[0])) return -EBADF;
  return poller_ctl(a, EPOLL_CTL_DEL, v[0], 0, 0, 0);
}

int32_t fn_poller_wait(struct addon *a, const int32_t *v) {
  int32_t max = v[2], timeout_ms = v[3];
  struct epoll_event events[MAX_BATCH];
  struct slab s;
  int32_t *out;
  int32_t r = slab_get(a, v[0], &s);
  if (r < 0) return r;
  if (max < 1 || max > MAX_BATCH || timeout_ms < -1 || timeout_ms > MAX_WAIT_MS) return -EINVAL;
  r = slab_words(&s, v[1], (int64_t)max * 3, &out);
  if (r < 0) return r;
  if (a->poller == NULL) return -ENXIO;
  r = epoll_wait(a->poller->epfd, events, max, timeout_ms);
  if (r < 0) return errno == EINTR ? 0 : -errno;
  for (int32_t i = 0; i < r; i++) {
    out[3 * i] = (int32_t)(uint32_t)events[i].data.u64;
    out[3 * i + 1] = (int32_t)(uint32_t)(events[i].data.u64 >> 32);
    out[3 * i + 2] = (int32_t)events[i].events;
  }
  return r;
}
