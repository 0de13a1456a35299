package deliver
