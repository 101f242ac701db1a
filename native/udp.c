/*
 * UDP in batches, with segmentation offload both ways (UDP_SEGMENT, UDP_GRO).
 *
 * udpRead receives up to 64 datagrams into a scratch area of 64 KiB each, so that none can be cut, and copies them
 * packed into the slab. What does not fit there any more is kept, in a buffer of its own, and is what the next
 * udpRead of that socket returns: nothing is lost. It follows that a short count does not mean that the socket is
 * empty; only 0 does.
 */
#include "internal.h"

#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BATCH 64
#define DATAGRAM_MAX 65536
#define CONTROL_ROOM 64   /* one UDP_GRO or UDP_SEGMENT message */
#define MAX_DATAGRAM_IOV 64
#define META_WORDS 10
#define WRITE_HEAD 8      /* niov, family, port, address, segment size */
#define LIKELY_MIN 2048   /* rarely keep datagrams: ask for no more than fit at this size */

/* udpOpen flags */
#define OPEN_CONNECT 1
#define OPEN_GRO 2
#define OPEN_RECVERR 4

#define META_TRUNCATED 1

struct udp_scratch {
  struct mmsghdr msgs[BATCH];
  struct iovec iov[BATCH * MAX_DATAGRAM_IOV];
  struct sockaddr_storage names[BATCH];
  union {
    struct cmsghdr align;
    uint8_t bytes[CONTROL_ROOM];
  } control[BATCH];
  uint8_t data[BATCH][DATAGRAM_MAX];
};

/* Datagrams that were received but did not fit into the slab. */
struct udp_kept {
  struct udp_kept *next;
  uint8_t *data;
  int32_t fd;
  int32_t count, at;
  struct {
    int32_t meta[META_WORDS]; /* [0] is the offset in `data` */
  } item[BATCH];
};

static struct udp_scratch *scratch_get(struct addon *a) {
  if (a->scratch == NULL) a->scratch = calloc(1, sizeof *a->scratch);
  return a->scratch;
}

static struct udp_kept **kept_find(struct addon *a, int32_t fd) {
  struct udp_kept **p = &a->kept;
  while (*p != NULL && (*p)->fd != fd) p = &(*p)->next;
  return p;
}

static void kept_drop(struct udp_kept **p) {
  struct udp_kept *k = *p;
  *p = k->next;
  free(k->data);
  free(k);
}

void udp_forget(struct addon *a, int32_t fd) {
  struct udp_kept **p = kept_find(a, fd);
  if (*p != NULL) kept_drop(p);
  a->fds[fd] &= (uint8_t)~FD_UDP_KEPT;
}

void udp_free(struct addon *a) {
  while (a->kept != NULL) kept_drop(&a->kept);
  free(a->scratch);
  a->scratch = NULL;
}

int32_t fn_udp_open(struct addon *a, const int32_t *v) {
  struct slab s;
  struct sockaddr_storage to;
  socklen_t to_len = 0;
  int32_t *desc;
  int32_t flags, fd, r;
  int on = 1;
  r = slab_get(a, v[0], &s);
  if (r < 0) return r;
  r = slab_words(&s, v[1], DESC_WORDS, &desc);
  if (r < 0) return r;
  flags = desc[D_UDP_FLAGS];
  if (flags & ~(OPEN_CONNECT | OPEN_GRO | OPEN_RECVERR)) return -EINVAL;
  if (desc[D_TOKEN] != -1 && (r = poller_ready(a)) < 0) return r;
  fd = socket_open(&s, desc, SOCK_DGRAM, &to, &to_len);
  if (fd < 0) return fd;
  fd = fd_own(a, fd);
  if (fd < 0) return fd;
  if (to.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) goto fail;
  if ((flags & OPEN_GRO) && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) < 0) goto fail;
  if (flags & OPEN_RECVERR) {
    r = to.ss_family == AF_INET ? setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on)
                                : setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof on);
    if (r < 0) goto fail;
  }
  r = flags & OPEN_CONNECT ? connect(fd, (struct sockaddr *)&to, to_len) : bind(fd, (struct sockaddr *)&to, to_len);
  if (r < 0) goto fail;
  if (desc[D_TOKEN] != -1) {
    r = poller_ctl(a, EPOLL_CTL_ADD, fd, (int32_t)(EPOLLIN | EPOLLET), desc[D_TOKEN], desc[D_GEN]);
    if (r < 0) {
      fd_close(a, fd);
      return r;
    }
  }
  return fd;
fail:
  r = -errno;
  fd_close(a, fd);
  return r;
}

/* The segment size the kernel reports for a merged datagram, 0 for a single one. */
static int32_t gro_size(struct msghdr *msg) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO && c->cmsg_len >= CMSG_LEN(sizeof(int))) {
      int size;
      memcpy(&size, CMSG_DATA(c), sizeof size);
      return size;
    }
  }
  return 0;
}

static void fill_meta(struct mmsghdr *m, struct sockaddr_storage *name, int32_t *meta) {
  meta[1] = (int32_t)m->msg_len;
  address_to_words(name, meta + 2);
  meta[8] = gro_size(&m->msg_hdr);
  meta[9] = m->msg_hdr.msg_flags & MSG_TRUNC ? META_TRUNCATED : 0;
}

/* Keep datagrams [from, to) of the scratch area for the next call. Without memory they are dropped, as UDP may. */
static void keep(struct addon *a, int32_t fd, int32_t from, int32_t to) {
  struct udp_scratch *u = a->scratch;
  struct udp_kept *k = calloc(1, sizeof *k);
  size_t bytes = 0, at = 0;
  if (k == NULL) return;
  for (int32_t i = from; i < to; i++) bytes += u->msgs[i].msg_len;
  k->data = malloc(bytes + 1);
  if (k->data == NULL) {
    free(k);
    return;
  }
  for (int32_t i = from; i < to; i++) {
    int32_t *meta = k->item[k->count++].meta;
    fill_meta(&u->msgs[i], &u->names[i], meta);
    meta[0] = (int32_t)at;
    memcpy(k->data + at, u->data[i], u->msgs[i].msg_len);
    at += u->msgs[i].msg_len;
  }
  k->fd = fd;
  k->next = a->kept;
  a->kept = k;
  a->fds[fd] |= FD_UDP_KEPT;
}

/* Where received datagrams go in one call. */
struct sink {
  struct slab s;
  int64_t off;
  int32_t limit;
  int32_t *meta;
  int32_t max;
  int32_t n;
};

/* Copy one datagram into the slab; 0 when it does not fit. Fills meta[0], the caller the rest. */
static int32_t *sink_put(struct sink *to, const uint8_t *data, int32_t len) {
  int32_t *meta;
  if (to->n == to->max || to->off > to->limit || to->limit - to->off < len) return NULL;
  memcpy(to->s.base + to->off, data, (size_t)len);
  meta = to->meta + (int64_t)to->n * META_WORDS;
  meta[0] = (int32_t)to->off;
  to->off = (to->off + len + 7) & ~(int64_t)7;
  to->n++;
  return meta;
}

static int32_t read_kept(struct addon *a, int32_t fd, struct sink *to) {
  struct udp_kept *k = *kept_find(a, fd);
  while (k->at < k->count) {
    const int32_t *from = k->item[k->at].meta;
    int32_t *meta = sink_put(to, k->data + from[0], from[1]);
    if (meta == NULL) return to->n > 0 ? to->n : -ENOBUFS;
    memcpy(meta + 1, from + 1, (META_WORDS - 1) * 4);
    k->at++;
  }
  udp_forget(a, fd);
  return to->n;
}

/* Details of errors that nobody fetched would fill the receive buffer. */
static void drop_errors(struct addon *a, int32_t fd) {
  uint8_t byte;
  a->fds[fd] &= (uint8_t)~FD_UDP_ERROR;
  for (int i = 0; i < 4096; i++) {
    if (recv(fd, &byte, 1, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return;
  }
}

static int32_t receive(struct addon *a, int32_t fd, struct sink *to) {
  struct udp_scratch *u = scratch_get(a);
  int64_t likely = (to->limit - to->off) / LIKELY_MIN;
  int32_t count = to->max < BATCH ? to->max : BATCH;
  int32_t got, i;
  if (u == NULL) return -ENOMEM;
  if (count > likely) count = likely < 1 ? 1 : (int32_t)likely;
  for (i = 0; i < count; i++) {
    struct msghdr *msg = &u->msgs[i].msg_hdr;
    u->iov[i].iov_base = u->data[i];
    u->iov[i].iov_len = DATAGRAM_MAX;
    u->names[i].ss_family = AF_UNSPEC;
    memset(msg, 0, sizeof *msg);
    msg->msg_name = &u->names[i];
    msg->msg_namelen = sizeof u->names[i];
    msg->msg_iov = &u->iov[i];
    msg->msg_iovlen = 1;
    msg->msg_control = u->control[i].bytes;
    msg->msg_controllen = CONTROL_ROOM;
  }
  do {
    got = recvmmsg(fd, u->msgs, (unsigned)count, MSG_DONTWAIT, NULL);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN) return 0;
    got = -errno;
    a->fds[fd] |= FD_UDP_ERROR;
    return got;
  }
  for (i = 0; i < got; i++) {
    int32_t *meta = sink_put(to, u->data[i], (int32_t)u->msgs[i].msg_len);
    if (meta == NULL) break;
    fill_meta(&u->msgs[i], &u->names[i], meta);
  }
  if (i < got) keep(a, fd, i, got);
  return to->n > 0 || got == 0 ? to->n : -ENOBUFS;
}

int32_t fn_udp_read(struct addon *a, const int32_t *v) {
  int32_t fd = v[0];
  struct sink to = {.off = v[2], .limit = v[3], .max = v[5], .n = 0};
  int32_t r;
  if (!fd_owned(a, fd)) return -EBADF;
  r = slab_get(a, v[1], &to.s);
  if (r < 0) return r;
  if (to.max < 1 || to.max > MAX_BATCH) return -EINVAL;
  r = slab_range(&to.s, v[2], to.limit);
  if (r < 0) return r;
  r = slab_words(&to.s, v[4], (int64_t)to.max * META_WORDS, &to.meta);
  if (r < 0) return r;
  if (a->fds[fd] & FD_UDP_ERROR) drop_errors(a, fd);
  return a->fds[fd] & FD_UDP_KEPT ? read_kept(a, fd, &to) : receive(a, fd, &to);
}

int32_t fn_udp_read_error(struct addon *a, const int32_t *v) {
  struct slab s;
  struct sockaddr_storage name;
  union {
    struct cmsghdr align;
    uint8_t bytes[512];
  } control;
  struct msghdr msg = {0};
  int32_t *out;
  int32_t r;
  if (!fd_owned(a, v[0])) return -EBADF;
  r = slab_get(a, v[1], &s);
  if (r < 0) return r;
  r = slab_words(&s, v[2], META_WORDS, &out);
  if (r < 0) return r;
  memset(&name, 0, sizeof name);
  msg.msg_name = &name;
  msg.msg_namelen = sizeof name;
  msg.msg_control = control.bytes;
  msg.msg_controllen = sizeof control.bytes;
  if (recvmsg(v[0], &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
    if (errno != EAGAIN) return -errno;
    a->fds[v[0]] &= (uint8_t)~FD_UDP_ERROR;
    return 0;
  }
  memset(out, 0, META_WORDS * 4);
  address_to_words(&name, out + 4);
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
    struct sock_extended_err error;
    int v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
    int v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
    if ((!v4 && !v6) || c->cmsg_len < CMSG_LEN(sizeof error)) continue;
    memcpy(&error, CMSG_DATA(c), sizeof error);
    out[0] = (int32_t)error.ee_errno;
    out[1] = error.ee_origin;
    out[2] = error.ee_type << 8 | error.ee_code;
    out[3] = (int32_t)error.ee_info;
  }
  return 1;
}

/* Fill message `slot` from the entry at `words`: words used, or -errno. */
static int32_t load_entry(struct udp_scratch *u, int32_t slot, const struct slab *s, const int32_t *entry, int32_t words) {
  struct msghdr *msg = &u->msgs[slot].msg_hdr;
  struct iovec *iov = u->iov + slot * MAX_DATAGRAM_IOV;
  int32_t niov, segment;
  if (words < WRITE_HEAD) return -EINVAL;
  niov = entry[0];
  segment = entry[7];
  if (niov < 0 || niov > MAX_DATAGRAM_IOV || niov * 2 > words - WRITE_HEAD) return -EINVAL;
  if (segment < 0 || segment > 65535) return -EINVAL;
  memset(msg, 0, sizeof *msg);
  if (entry[1] != 0) {
    int32_t len = address_from_words(entry[1], entry[2], entry + 3, 0, &u->names[slot]);
    if (len < 0) return len;
    msg->msg_name = &u->names[slot];
    msg->msg_namelen = (socklen_t)len;
  }
  for (int32_t k = 0; k < niov; k++) {
    int32_t off = entry[WRITE_HEAD + 2 * k], len = entry[WRITE_HEAD + 2 * k + 1];
    if (!slab_has(s, off, len)) return -EFAULT;
    iov[k].iov_base = s->base + off;
    iov[k].iov_len = (size_t)len;
  }
  msg->msg_iov = iov;
  msg->msg_iovlen = (size_t)niov;
  if (segment > 0) {
    uint16_t size = (uint16_t)segment;
    struct cmsghdr *c;
    memset(u->control[slot].bytes, 0, CONTROL_ROOM);
    msg->msg_control = u->control[slot].bytes;
    msg->msg_controllen = CMSG_SPACE(sizeof size);
    c = CMSG_FIRSTHDR(msg);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(c), &size, sizeof size);
  }
  return WRITE_HEAD + 2 * niov;
}

int32_t fn_udp_write(struct addon *a, const int32_t *v) {
  int32_t fd = v[0], desc_len = v[3], count = v[4];
  struct udp_scratch *u;
  struct slab s;
  int32_t *desc;
  int32_t words, r, at = 0, done = 0, bad = 0;
  if (!fd_owned(a, fd)) return -EBADF;
  r = slab_get(a, v[1], &s);
  if (r < 0) return r;
  if (desc_len < 0) return -EFAULT;
  words = desc_len / 4;
  r = slab_words(&s, v[2], words, &desc);
  if (r < 0) return r;
  if (count < 0) return -EINVAL;
  u = scratch_get(a);
  if (u == NULL) return -ENOMEM;
  while (done < count && bad == 0) {
    int32_t loaded = 0, sent;
    while (loaded < BATCH && done + loaded < count) {
      r = load_entry(u, loaded, &s, desc + at, words - at);
      if (r < 0) {
        bad = r;
        break;
      }
      at += r;
      loaded++;
    }
    if (loaded == 0) break;
    do {
      sent = sendmmsg(fd, u->msgs, (unsigned)loaded, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
      if (done > 0) return done;
      sent = -errno;
      if (sent != -EAGAIN) a->fds[fd] |= FD_UDP_ERROR;
      return sent;
    }
    done += sent;
    if (sent < loaded) return done;
  }
  return done > 0 || bad == 0 ? done : bad;
}
