/*
 * PCI configuration mechanism #1 at CF8h and CFCh, with an empty bus behind it.
 */
#ifndef DEVICES_PCI_CONFIG_H
#define DEVICES_PCI_CONFIG_H

#include "base/err.h"
#include "devices/bus.h"

struct pci_config {
    uint32_t address;
};

int pci_config_init(struct pci_config *p, struct bus *bus, struct err *err);
void pci_config_reset(struct pci_config *p);

#endif
