/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TALLY_WAL_DISK_WAIT_H
#define TALLY_WAL_DISK_WAIT_H

#include "engine/base/seams.h"

/** One operation of a disk, waited for. Control path: blocks; nothing else may be in flight on the disk.
 *  @return 0, or -errno (-EIO when fewer bytes were done than asked for) */
int disk_wait(struct disk *disk, struct disk_io *io);

#endif
