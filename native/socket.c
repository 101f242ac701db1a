/* What TCP and UDP sockets share: addresses, opening with mark and device, names and options. */
#include "internal.h"

#include <string.h>
#include <sys/un.h>
#include <unistd.h>

int32_t address_from_words(int32_t family, int32_t port, const int32_t *addr, int32_t scope, struct sockaddr_storage *out) {
  if (port < 0 || port > 65535) return -EINVAL;
  memset(out, 0, sizeof *out);
  if (family == 4) {
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    memcpy(&in->sin_addr, addr, 4);
    return (int32_t)sizeof *in;
  }
  if (family == 6) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    in6->sin6_scope_id = (uint32_t)scope;
    memcpy(&in6->sin6_addr, addr, 16);
    return (int32_t)sizeof *in6;
  }
  return -EINVAL;
}

void address_to_words(const struct sockaddr_storage *from, int32_t *words) {
  memset(words, 0, 24);
  if (from->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)from;
    words[0] = 4;
    words[1] = ntohs(in->sin_port);
    memcpy(words + 2, &in->sin_addr, 4);
  } else if (from->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    words[0] = 6;
    words[1] = ntohs(in6->sin6_port);
    memcpy(words + 2, &in6->sin6_addr, 16);
  }
}

/* The path of a Unix socket, or an abstract name, which begins with a zero byte (unix(7)). */
static int32_t path_from_slab(const struct slab *s, int32_t off, int32_t len, struct sockaddr_storage *out) {
  struct sockaddr_un *un = (struct sockaddr_un *)out;
  if (len < 1) return -EINVAL;
  if (!slab_has(s, off, len)) return -EFAULT;
  if ((size_t)len > sizeof un->sun_path) return -ENAMETOOLONG;
  memset(out, 0, sizeof *out);
  un->sun_family = AF_UNIX;
  memcpy(un->sun_path, s->base + off, (size_t)len);
  /* The kernel would take the part before the zero for the whole path. */
  if (un->sun_path[0] != 0 && memchr(un->sun_path, 0, (size_t)len) != NULL) return -EINVAL;
  return (int32_t)offsetof(struct sockaddr_un, sun_path) + len;
}

int32_t socket_open(const struct slab *s, const int32_t *desc, int type, struct sockaddr_storage *to, socklen_t *to_len) {
  char name[16] = {0};
  int is_unix = desc[D_FAMILY] == FAMILY_UNIX && type == SOCK_STREAM;
  int32_t r = is_unix ? path_from_slab(s, desc[D_ADDR], desc[D_ADDR + 1], to)
                      : address_from_words(desc[D_FAMILY], desc[D_PORT], desc + D_ADDR, desc[D_SCOPE], to);
  int mark = desc[D_MARK];
  int fd;
  if (r < 0) return r;
  *to_len = (socklen_t)r;
  if (!is_unix && desc[D_IFNAME] != -1) {
    r = slab_name(s, desc[D_IFNAME], name);
    if (r < 0) return r;
  }
  fd = socket(to->ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (is_unix) return fd;
  if (mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) goto fail;
  if (name[0] != 0 && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name) + 1) < 0) goto fail;
  return fd;
fail:
  r = -errno;
  close(fd);
  return r;
}

int32_t fn_socket_shutdown(struct addon *a, const int32_t *v) {
  if (!fd_owned(a, v[0])) return -EBADF;
  if (v[1] < SHUT_RD || v[1] > SHUT_RDWR) return -EINVAL;
  return shutdown(v[0], v[1]) < 0 ? -errno : 0;
}

int32_t fn_socket_reset(struct addon *a, const int32_t *v) {
  struct linger linger = {1, 0};
  if (!fd_owned(a, v[0])) return -EBADF;
  if (setsockopt(v[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) < 0) return -errno;
  return fd_close(a, v[0]);
}

int32_t fn_socket_error(struct addon *a, const int32_t *v) {
  int error = 0;
  socklen_t len = sizeof error;
  if (!fd_owned(a, v[0])) return -EBADF;
  return getsockopt(v[0], SOL_SOCKET, SO_ERROR, &error, &len) < 0 ? -errno : error;
}

int32_t fn_socket_name(struct addon *a, const int32_t *v) {
  struct sockaddr_storage name;
  socklen_t len = sizeof name;
  struct slab s;
  int32_t *words;
  int32_t r;
  if (!fd_owned(a, v[0])) return -EBADF;
  if (v[1] != 0 && v[1] != 1) return -EINVAL;
  r = slab_get(a, v[2], &s);
  if (r < 0) return r;
  r = slab_words(&s, v[3], 6, &words);
  if (r < 0) return r;
  memset(&name, 0, sizeof name);
  r = v[1] ? getpeername(v[0], (struct sockaddr *)&name, &len) : getsockname(v[0], (struct sockaddr *)&name, &len);
  if (r < 0) return -errno;
  address_to_words(&name, words);
  return 0;
}

/*
 * Only integer options. The kernel is told four bytes; the buffer behind them is larger because a few options
 * (SO_GET_FILTER counts in blocks of eight bytes) read the length in another unit.
 */
#define OPTION_ROOM 64

int32_t fn_set_option(struct addon *a, const int32_t *v) {
  int32_t value[OPTION_ROOM] = {0};
  if (!fd_owned(a, v[0])) return -EBADF;
  value[0] = v[3];
  return setsockopt(v[0], v[1], v[2], value, 4) < 0 ? -errno : 0;
}

int32_t fn_get_option(struct addon *a, const int32_t *v) {
  int32_t value[OPTION_ROOM] = {0};
  socklen_t len = 4;
  if (!fd_owned(a, v[0])) return -EBADF;
  return getsockopt(v[0], v[1], v[2], value, &len) < 0 ? -errno : value[0];
}
