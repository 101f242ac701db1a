/* One rtnetlink request and its replies. The messages themselves are made and read in TypeScript. */
#include "internal.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_MS 2000

static int64_t now_ms(void) {
  struct timespec t = {0};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Walk the messages in [p, p + len); returns how many are complete and passes each to `count`. */
static int32_t count_messages(const uint8_t *p, uint32_t len, int (*wanted)(const struct nlmsghdr *)) {
  int32_t n = 0;
  while (len >= sizeof(struct nlmsghdr)) {
    struct nlmsghdr h;
    uint32_t step;
    memcpy(&h, p, sizeof h);
    if (h.nlmsg_len < sizeof h || h.nlmsg_len > len) break;
    n += wanted(&h);
    step = NLMSG_ALIGN(h.nlmsg_len);
    if (step >= len) break;
    p += step;
    len -= step;
  }
  return n;
}

/* A request that is answered by NLMSG_DONE or NLMSG_ERROR. RTM_GET types are 2 modulo 4; elsewhere the dump bits
   mean "replace" and "exclusive". */
static int is_closed_request(const struct nlmsghdr *h) {
  int is_get = (h->nlmsg_type & 3) == 2;
  return (h->nlmsg_flags & NLM_F_ACK) != 0 || (is_get && (h->nlmsg_flags & NLM_F_DUMP) != 0);
}

static int is_end(const struct nlmsghdr *h) { return h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR; }

static int32_t exchange(int fd, uint8_t *base, int32_t len, int32_t cap) {
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  int64_t deadline = now_ms() + TIMEOUT_MS;
  int32_t open = count_messages(base, (uint32_t)len, is_closed_request);
  int one_datagram = open == 0;
  int32_t used = 0;
  if (sendto(fd, base, (size_t)len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0) return -errno;
  for (;;) {
    struct pollfd pfd = {.fd = fd, .events = POLLIN, .revents = 0};
    struct sockaddr_nl from = {0};
    struct iovec iov = {base + used, (size_t)(cap - used)};
    struct msghdr msg = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &iov, .msg_iovlen = 1};
    int64_t left = deadline - now_ms();
    ssize_t got;
    if (left <= 0) return -ETIMEDOUT;
    if (poll(&pfd, 1, (int)left) <= 0) continue;
    got = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_TRUNC); /* MSG_TRUNC: the true length, to notice a small buffer */
    if (got < 0) {
      if (errno == EAGAIN || errno == EINTR) continue;
      return -errno;
    }
    if (from.nl_pid != 0) continue; /* not from the kernel */
    if (got > cap - used) return -ENOBUFS;
    open -= count_messages(base + used, (uint32_t)got, is_end);
    used += (int32_t)got;
    if (one_datagram || open <= 0) return used;
    used = (int32_t)NLMSG_ALIGN((uint32_t)used) <= cap ? (int32_t)NLMSG_ALIGN((uint32_t)used) : cap;
  }
}

int32_t fn_netlink(struct addon *a, const int32_t *v) {
  int32_t off = v[1], len = v[2], cap = v[3];
  struct slab s;
  int32_t r = slab_get(a, v[0], &s);
  int fd;
  if (r < 0) return r;
  if (!slab_has(&s, off, len) || !slab_has(&s, off, cap)) return -EFAULT;
  if (len < (int32_t)sizeof(struct nlmsghdr)) return -EINVAL;
  fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  r = exchange(fd, s.base + off, len, cap);
  close(fd);
  return r;
}
