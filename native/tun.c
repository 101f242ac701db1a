/* TUN and TAP devices: open, ioctls, batched reads and gathered batched writes. */
#include "internal.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TUN_FLAGS (IFF_TUN | IFF_TAP | IFF_NAPI | IFF_MULTI_QUEUE | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL)
#define MAX_WRITE_IOV 64

int32_t fn_tun_open(struct addon *a, const int32_t *v) {
  int32_t name_off = v[1], flags = v[2];
  struct slab s;
  struct ifreq ifr;
  int32_t r = slab_get(a, v[0], &s);
  int fd;
  if (r < 0) return r;
  memset(&ifr, 0, sizeof ifr);
  r = slab_name(&s, name_off, ifr.ifr_name);
  if (r < 0) return r;
  if (flags & ~TUN_FLAGS) return -EINVAL;
  if (!(flags & IFF_TUN) == !(flags & IFF_TAP)) return -EINVAL;
  fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  ifr.ifr_flags = (short)flags;
  if (ioctl(fd, TUNSETIFF, &ifr) < 0) {
    r = -errno;
    close(fd);
    return r;
  }
  memcpy(s.base + name_off, ifr.ifr_name, 16);
  return fd_own(a, fd);
}

int32_t fn_tun_get_features(struct addon *a, const int32_t *v) {
  unsigned int features = 0;
  if (!fd_owned(a, v[0])) return -EBADF;
  return ioctl(v[0], TUNGETFEATURES, &features) < 0 ? -errno : (int32_t)(features & INT32_MAX);
}

static int32_t set_int(struct addon *a, int32_t fd, unsigned long request, int32_t value) {
  int n = value;
  if (!fd_owned(a, fd)) return -EBADF;
  return ioctl(fd, request, &n) < 0 ? -errno : 0;
}

/* These two take their argument by value, not by pointer. */
static int32_t set_by_value(struct addon *a, int32_t fd, unsigned long request, int32_t value) {
  if (!fd_owned(a, fd)) return -EBADF;
  return ioctl(fd, request, (unsigned long)(uint32_t)value) < 0 ? -errno : 0;
}

int32_t fn_tun_set_vnet_hdr_size(struct addon *a, const int32_t *v) { return set_int(a, v[0], TUNSETVNETHDRSZ, v[1]); }

int32_t fn_tun_set_send_buffer(struct addon *a, const int32_t *v) { return set_int(a, v[0], TUNSETSNDBUF, v[1]); }

int32_t fn_tun_set_offload(struct addon *a, const int32_t *v) { return set_by_value(a, v[0], TUNSETOFFLOAD, v[1]); }

int32_t fn_tun_set_persist(struct addon *a, const int32_t *v) {
  if (v[1] != 0 && v[1] != 1) return -EINVAL;
  return set_by_value(a, v[0], TUNSETPERSIST, v[1]);
}

int32_t fn_tun_get_iff(struct addon *a, const int32_t *v) {
  struct slab s;
  struct ifreq ifr;
  int32_t r;
  if (!fd_owned(a, v[0])) return -EBADF;
  r = slab_get(a, v[1], &s);
  if (r < 0) return r;
  if (!slab_has(&s, v[2], 16)) return -EFAULT;
  memset(&ifr, 0, sizeof ifr);
  if (ioctl(v[0], TUNGETIFF, &ifr) < 0) return -errno;
  memcpy(s.base + v[2], ifr.ifr_name, 16);
  return (uint16_t)ifr.ifr_flags;
}

int32_t fn_tun_read(struct addon *a, const int32_t *v) {
  int32_t fd = v[0], first = v[2], limit = v[3], room = v[4], max = v[6];
  struct slab s;
  int32_t *meta;
  int32_t r, n = 0;
  int64_t off = first;
  if (!fd_owned(a, fd)) return -EBADF;
  r = slab_get(a, v[1], &s);
  if (r < 0) return r;
  if (room < 1 || max < 1 || max > MAX_BATCH) return -EINVAL;
  r = slab_range(&s, first, limit);
  if (r < 0) return r;
  r = slab_words(&s, v[5], (int64_t)max * 2, &meta);
  if (r < 0) return r;
  while (n < max && limit - off >= room) {
    ssize_t got = read(fd, s.base + off, (size_t)(limit - off));
    if (got < 0) {
      if (errno == EINTR) continue;
      if (n == 0 && errno != EAGAIN) return -errno;
      break;
    }
    if (got == 0) break;
    meta[2 * n] = (int32_t)off;
    meta[2 * n + 1] = (int32_t)got;
    n++;
    off += got;
    off += (first - off) & 3; /* every packet keeps the alignment phase of the first */
  }
  return n;
}

int32_t fn_tun_write(struct addon *a, const int32_t *v) {
  int32_t fd = v[0], desc_len = v[3], count = v[4];
  struct slab s;
  struct iovec iov[MAX_WRITE_IOV];
  int32_t *desc;
  int32_t r, words, at = 0;
  if (!fd_owned(a, fd)) return -EBADF;
  r = slab_get(a, v[1], &s);
  if (r < 0) return r;
  if (desc_len < 0) return -EFAULT;
  words = desc_len / 4;
  r = slab_words(&s, v[2], words, &desc);
  if (r < 0) return r;
  if (count < 0) return -EINVAL;
  for (int32_t i = 0; i < count; i++) {
    int32_t niov = at < words ? desc[at] : 0;
    if (niov < 1 || niov > MAX_WRITE_IOV || niov * 2 > words - at - 1) return i > 0 ? i : -EINVAL;
    for (int32_t k = 0; k < niov; k++) {
      int32_t off = desc[at + 1 + 2 * k], len = desc[at + 2 + 2 * k];
      if (!slab_has(&s, off, len)) return i > 0 ? i : -EFAULT;
      iov[k].iov_base = s.base + off;
      iov[k].iov_len = (size_t)len;
    }
    for (;;) {
      ssize_t put = niov == 1 ? write(fd, iov[0].iov_base, iov[0].iov_len) : writev(fd, iov, niov);
      if (put >= 0) break;
      if (errno != EINTR) return i > 0 ? i : -errno;
    }
    at += 1 + 2 * niov;
  }
  return count;
}
