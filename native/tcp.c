/* Streams, TCP and Unix: dial with an optimistic first send, batched receive, gathered batched send. */
#include "internal.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#define STREAM_EVENTS (int32_t)(EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define SEND_FLAGS (MSG_NOSIGNAL | MSG_DONTWAIT)
#define MAX_SEND_IOV 256

/* streamWrite flags */
#define WRITE_MORE 1
#define WRITE_SHUTDOWN 2

static int set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* Keep-alive (RFC 9293 section 3.8.4), and the same patience with data that nobody acknowledges (RFC 5482). */
static int32_t keep_alive(int fd, const int32_t *desc) {
  int r = 0;
  if (desc[D_KEEP_IDLE] != 0) {
    r = set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (r == 0) r = set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, desc[D_KEEP_IDLE]);
    if (r == 0) r = set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, desc[D_KEEP_INTERVAL]);
    if (r == 0) r = set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, desc[D_KEEP_PROBES]);
  }
  if (r == 0 && desc[D_USER_TIMEOUT] != 0) r = set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, desc[D_USER_TIMEOUT]);
  return r;
}

static int32_t prepare(int fd, const int32_t *desc) {
  int32_t r;
  if (desc[D_FAMILY] == FAMILY_UNIX) return 0;
  r = set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  /* RFC 6093 section 4: urgent data stays in line. */
  if (r == 0) r = set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1);
  return r == 0 ? keep_alive(fd, desc) : r;
}

/* Start the connection and send the first bytes at once: on a near proxy the SYN-ACK is often here already. */
static int32_t dial(int fd, const struct sockaddr_storage *to, socklen_t to_len, const uint8_t *data, int32_t len, int32_t *desc) {
  int error = 0;
  socklen_t error_len = sizeof error;
  struct pollfd pfd = {.fd = fd, .events = POLLOUT, .revents = 0};
  if (connect(fd, (const struct sockaddr *)to, to_len) == 0) {
    desc[D_CONNECTED] = 1;
  } else if (errno != EINPROGRESS) {
    return -errno;
  }
  if (len > 0) {
    ssize_t sent = send(fd, data, (size_t)len, SEND_FLAGS);
    if (sent >= 0) {
      desc[D_SENT] = (int32_t)sent;
      desc[D_CONNECTED] = 1;
    } else if (errno != EAGAIN && errno != ENOTCONN) {
      return -errno;
    }
    return 0;
  }
  if (desc[D_CONNECTED] || poll(&pfd, 1, 0) <= 0) return 0;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0) return -errno;
  if (error != 0) return -error;
  desc[D_CONNECTED] = (pfd.revents & POLLOUT) != 0;
  return 0;
}

int32_t fn_tcp_connect(struct addon *a, const int32_t *v) {
  struct slab s;
  struct sockaddr_storage to;
  socklen_t to_len = 0;
  int32_t *desc;
  const uint8_t *data = NULL;
  int32_t data_len, fd;
  int32_t r = slab_get(a, v[0], &s);
  if (r < 0) return r;
  r = slab_words(&s, v[1], DESC_WORDS, &desc);
  if (r < 0) return r;
  data_len = desc[D_DATA_LEN];
  if (data_len != 0) {
    if (!slab_has(&s, desc[D_DATA_OFF], data_len)) return -EFAULT;
    data = s.base + desc[D_DATA_OFF];
  }
  if (desc[D_TOKEN] != -1 && (r = poller_ready(a)) < 0) return r;
  desc[D_SENT] = 0;
  desc[D_CONNECTED] = 0;
  fd = socket_open(&s, desc, SOCK_STREAM, &to, &to_len);
  if (fd < 0) return fd;
  fd = fd_own(a, fd);
  if (fd < 0) return fd;
  r = prepare(fd, desc);
  if (r == 0) r = dial(fd, &to, to_len, data, data_len, desc);
  if (r == 0 && desc[D_TOKEN] != -1) r = poller_ctl(a, EPOLL_CTL_ADD, fd, STREAM_EVENTS, desc[D_TOKEN], desc[D_GEN]);
  if (r < 0) {
    fd_close(a, fd);
    return r;
  }
  return fd;
}

int32_t fn_stream_read(struct addon *a, const int32_t *v) {
  int32_t count = v[2], first = v[3], limit = v[4], per_max = v[5], room = v[6];
  struct slab s;
  int32_t *list;
  int32_t n;
  int64_t off = first;
  int32_t r = slab_get(a, v[0], &s);
  if (r < 0) return r;
  if (count < 0 || per_max < 1 || room < 1) return -EINVAL;
  r = slab_words(&s, v[1], (int64_t)count * 4, &list);
  if (r < 0) return r;
  r = slab_range(&s, first, limit);
  if (r < 0) return r;
  for (n = 0; n < count && limit - off >= room; n++) {
    int32_t *entry = list + 4 * (int64_t)n;
    int32_t fd = entry[0];
    int32_t size = limit - off < per_max ? (int32_t)(limit - off) : per_max;
    ssize_t got = -1;
    if (fd_owned(a, fd)) {
      do {
        got = recv(fd, s.base + off, (size_t)size, MSG_DONTWAIT);
      } while (got < 0 && errno == EINTR);
    } else {
      errno = EBADF;
    }
    entry[1] = got < 0 ? -errno : (int32_t)got;
    entry[2] = (int32_t)off;
    entry[3] = size;
    if (got > 0) off = (off + got + 7) & ~(int64_t)7;
  }
  return n;
}

/* One entry of streamWrite: bytes taken or -errno. */
static int32_t send_entry(struct addon *a, const struct slab *s, int32_t fd, int32_t flags, const int32_t *pairs, int32_t niov) {
  struct iovec iov[MAX_SEND_IOV];
  struct msghdr msg = {0};
  uint64_t total = 0;
  ssize_t sent = 0;
  if (!fd_owned(a, fd)) return -EBADF;
  if (flags & ~(WRITE_MORE | WRITE_SHUTDOWN)) return -EINVAL;
  for (int32_t k = 0; k < niov; k++) {
    int32_t off = pairs[2 * k], len = pairs[2 * k + 1];
    if (!slab_has(s, off, len)) return -EFAULT;
    iov[k].iov_base = s->base + off;
    iov[k].iov_len = (size_t)len;
    total += (uint64_t)len;
  }
  if (total > 0) {
    /* Before a FIN the data is held back for a moment, so that the FIN rides on its last segment. */
    int send_flags = SEND_FLAGS | (flags != 0 ? MSG_MORE : 0);
    msg.msg_iov = iov;
    msg.msg_iovlen = (size_t)niov;
    do {
      sent = sendmsg(fd, &msg, send_flags);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) return -errno;
  }
  if ((flags & WRITE_SHUTDOWN) && (uint64_t)sent == total && shutdown(fd, SHUT_WR) < 0 && total == 0) return -errno;
  return (int32_t)sent;
}

int32_t fn_stream_write(struct addon *a, const int32_t *v) {
  int32_t desc_len = v[2], count = v[3];
  struct slab s;
  int32_t *desc;
  int32_t words, at = 0;
  int32_t r = slab_get(a, v[0], &s);
  if (r < 0) return r;
  if (desc_len < 0) return -EFAULT;
  words = desc_len / 4;
  r = slab_words(&s, v[1], words, &desc);
  if (r < 0) return r;
  if (count < 0) return -EINVAL;
  for (int32_t i = 0; i < count; i++) {
    int32_t *entry = desc + at;
    int32_t niov = words - at >= 4 ? entry[2] : -1;
    if (niov < 0 || niov > MAX_SEND_IOV || niov * 2 > words - at - 4) {
      /* Where the next entry starts is unknown: stop here. */
      if (words - at >= 4) entry[3] = -EINVAL;
      return i > 0 ? i : -EINVAL;
    }
    entry[3] = send_entry(a, &s, entry[0], entry[1], entry + 4, niov);
    at += 4 + 2 * niov;
  }
  return count;
}
