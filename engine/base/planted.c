/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/planted.h"

enum planted planted_bug;
