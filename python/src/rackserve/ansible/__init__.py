"""What Ansible loads: filters, actions, modules and the code that modules share."""
